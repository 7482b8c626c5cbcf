"""Open the weights at a path, whatever kind of checkpoint it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bigbird_port.checkpoint.flax_msgpack import FlaxMsgpack
from bigbird_port.checkpoint.links import file_size
from bigbird_port.checkpoint.locate import find_checkpoint, find_flags
from bigbird_port.checkpoint.orbax_folder import OrbaxFolder, is_orbax
from bigbird_port.checkpoint.safetensors_file import SafetensorsFile, SafetensorsShards, read_weight_map
from bigbird_port.checkpoint.saved_model import SavedModel, open_saved_model, saved_by_objects
from bigbird_port.checkpoint.store import Store
from bigbird_port.checkpoint.tensor_bundle import TensorBundle
from bigbird_port.checkpoint.torch_bin import TorchBin, TorchBinShards
from bigbird_port.out_folder import TARGET_FOLDERS, check_out
from bigbird_port.reading import is_there, open_regular

Style = Literal["original", "saved-model", "torch", "flax", "neutral"]
NEUTRAL_FILE = "model.neutral.safetensors"
NEUTRAL_FORMAT = "bigbird-port neutral"
# What counts in a folder, in this order, besides TensorFlow's and Orbax's files, which have no fixed names.
_NEUTRAL_FILES = (NEUTRAL_FILE,)
_TORCH_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_FLAX_FILES = ("flax_model.msgpack",)


@dataclass(frozen=True)
class Opened:
    """Weights that were found. path: the folder, file or TensorFlow prefix; style: whose names its tensors have.

    config_file: the configuration beside the weights, if there is one.
    """

    path: Path
    style: Style
    store: Store
    config_file: Path | None


def open_store(path: Path, config_file: Path | None = None) -> Opened:
    """Open a TensorFlow checkpoint, a SavedModel, a torch, Flax or neutral folder or file, or what convert wrote.

    config_file: to be taken instead of what lies beside the weights. Raises ValueError saying what was looked for
    and found, or naming the file and what is wrong with it, or what stands in a folder of convert's that it did not
    write.
    """
    check_out(path)
    return open_weights(path, config_file)


def open_weights(path: Path, config_file: Path | None = None) -> Opened:
    """Open as open_store does, whatever else stands in a folder that convert wrote."""
    found = _open_folder(path, config_file) if path.is_dir() else _open_file(path, config_file)
    if found is None and path.is_dir():
        inner = next((path / name for name in TARGET_FOLDERS if (path / name).is_dir()), None)
        found = _open_folder(inner, config_file) if inner else None
    if found is None:
        raise ValueError(_nothing_found(path))
    return found


def _open_folder(folder: Path, config_file: Path | None) -> Opened | None:
    if is_there(folder / "saved_model.pb"):
        return Opened(folder, "saved-model", open_saved_model(folder), config_file or _flags(folder / "saved_model"))
    if is_there(folder / "checkpoint") or any(folder.glob("*.index")):
        return _open_prefix(find_checkpoint(folder), config_file)
    for name in (*_NEUTRAL_FILES, *_TORCH_FILES, *_FLAX_FILES):
        if is_there(file := folder / name):
            return _weights(folder, file, config_file)
    for orbax in (folder / "orbax", folder):
        if is_orbax(orbax):
            return Opened(folder, "flax", OrbaxFolder(orbax), config_file or _config_in(folder))
    return None


def _open_file(path: Path, config_file: Path | None) -> Opened | None:
    if path.name == "saved_model.pb":
        return _open_folder(path.parent, config_file)
    if path.suffix == ".index" or is_there(Path(f"{path}.index")):
        return _open_prefix(find_checkpoint(path), config_file)
    return _weights(path, path, config_file) if is_there(path) else None


def _open_prefix(prefix: Path, config_file: Path | None) -> Opened:
    bundle = TensorBundle(prefix)
    if saved_by_objects(bundle):
        return Opened(prefix, "saved-model", SavedModel(bundle), config_file or _flags(prefix))
    return Opened(prefix, "original", bundle, config_file or _flags(prefix))


def _weights(path: Path, file: Path, config_file: Path | None) -> Opened | None:
    """Open one weight file or shard index; ``path`` is what it stands for."""
    kind = _kind(file)
    if kind is None:
        return None
    style, opener = kind
    store = opener(file)
    if isinstance(store, (SafetensorsFile, SafetensorsShards)):
        style = _safetensors_style(file, store.metadata)
    return Opened(path, style, store, config_file or _config_in(file.parent))


def _kind(file: Path) -> tuple[Style, Callable[[Path], Store]] | None:
    """What reads a file: its name's ending tells, or else its first bytes."""
    if file.name.endswith(".index.json"):
        shards = read_weight_map(file).values()
        return ("torch", SafetensorsShards if all(name.endswith(".safetensors") for name in shards) else TorchBinShards)
    if file.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[file.suffix]
    file_size(file)
    with open_regular(file) as opened:
        start = opened.read(9)
    return next((kind for recognises, kind in _BY_CONTENT if recognises(start)), None)


_SAFETENSORS: tuple[Style, Callable[[Path], Store]] = ("torch", SafetensorsFile)
_TORCH: tuple[Style, Callable[[Path], Store]] = ("torch", TorchBin)
_FLAX: tuple[Style, Callable[[Path], Store]] = ("flax", FlaxMsgpack)
_BY_SUFFIX = {".safetensors": _SAFETENSORS, ".bin": _TORCH, ".pt": _TORCH, ".pth": _TORCH, ".msgpack": _FLAX}
_BY_CONTENT: tuple[tuple[Callable[[bytes], bool], tuple[Style, Callable[[Path], Store]]], ...] = (
    (lambda start: start[8:] == b"{", _SAFETENSORS),
    (lambda start: start[:4] == b"PK\3\4" or (start[:1] == b"\x80" and start[1:2] <= b"\5"), _TORCH),
    (lambda start: 0x80 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF) if start else False, _FLAX),
)


def _safetensors_style(file: Path, metadata: dict[str, str]) -> Style:
    format_ = metadata.get("format")
    if format_ == NEUTRAL_FORMAT:
        return "neutral"
    if file.name == NEUTRAL_FILE or format_ in ("tf", "flax"):
        expected = NEUTRAL_FORMAT if file.name == NEUTRAL_FILE else "pt"
        raise ValueError(f"{file}: the format in its metadata is {format_!r}: expected {expected!r}")
    return "torch"


def _config_in(folder: Path) -> Path | None:
    return _checked(folder / "config.json") if is_there(folder / "config.json") else None


def _flags(prefix: Path) -> Path | None:
    found = find_flags(prefix)
    return _checked(found) if found else None


def _checked(file: Path) -> Path:
    file_size(file)
    return file


def _nothing_found(path: Path) -> str:
    files = ", ".join((*_NEUTRAL_FILES, *_TORCH_FILES, *_FLAX_FILES))
    looked_for = (
        f"looked for a TensorFlow checkpoint (a prefix, *.index), a SavedModel (saved_model.pb), {files}, a checkpoint "
        f"of Orbax, and for the folders {', '.join(TARGET_FOLDERS)} that convert writes"
    )
    if not path.is_dir():
        problem = "not a weight file that is known" if path.exists() else "there is no such file"
        return f"{path}: {problem}; {looked_for}"
    names = sorted(each.name for each in path.iterdir())
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"{path}: no weights in this folder; {looked_for}; found {shown or 'nothing'}"
