"""Weight files that lie beside those that were read: they are named, because they may hold another model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

# Files that frameworks call a model's weights; what a training run keeps beside them has other names.
_WEIGHTS = re.compile(
    r".+\.(safetensors|msgpack|ckpt)|pytorch_model.*\.bin|tf_model.*\.h5|.+\.(safetensors|bin)\.index\.json|"
    r".+\.index|saved_model\.pb"
)
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
_STATE = "training.safetensors"  # slots that belong to the weights beside them
_OUT_FOLDERS = ("neutral", "torch", "flax", "tf")  # of what convert wrote, that hold weights to read
_SHOWN = 5


def passed_over(given: Path, read: Iterable[Path]) -> list[str]:
    """Return names of weight files in the folder ``given`` that are none of those that were ``read``, sorted.

    Of shards the index is named, of a TensorFlow checkpoint its prefix, of what convert wrote the other folders. Where
    a file was given nothing is passed over.
    """
    if not given.is_dir():
        return []
    files = [file.relative_to(given) for file in read if file.is_relative_to(given)]
    inner = {file.parts[0] for file in files} & set(_OUT_FOLDERS)
    if inner:
        return [f"{name}/" for name in _OUT_FOLDERS if name not in inner and (given / name).is_dir()]
    taken = {name for file in files for name in _names_of(file)}
    found = [path.name for path in given.iterdir() if _WEIGHTS.fullmatch(path.name) and not _SHARD.fullmatch(path.name)]
    found += ["orbax/"] if (given / "orbax").is_dir() else []
    return sorted(name.removesuffix(".index") for name in found if name not in {*taken, _STATE})


def _names_of(file: Path) -> Iterator[str]:
    """The names under which a file that was read is found: its own, its index's, or its folder's."""
    yield file.name
    if shard := _SHARD.fullmatch(file.name):
        yield f"{shard[1]}{shard[2]}.index.json"
    if len(file.parts) > 1:
        yield from (f"{file.parts[0]}/", "saved_model.pb") if file.parts[0] == "variables" else (f"{file.parts[0]}/",)


def passed_over_note(read: Iterable[Path], others: list[str]) -> str:
    """Return the sentence that says which file was read, and which were not."""
    names = [file.name for file in read]
    which = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return f"weights from {which}; passed over, whatever they hold: {', '.join(others[:_SHOWN])}{more}"
