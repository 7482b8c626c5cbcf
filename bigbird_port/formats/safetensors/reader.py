"""Reader of safetensors files and of the shards that a transformers index names, without the safetensors library.

A file is the length of its header (8 bytes, little-endian), the header (a JSON object: name -> dtype, shape and
data_offsets), and the values, which fill the rest of the file without gaps (huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigbird_port.files.json_object import parse_json, read_json_object
from bigbird_port.files.reading import open_regular
from bigbird_port.formats.dtypes import DTYPES
from bigbird_port.formats.limits import MAX_HEADER_BYTES, MAX_SHARDS, MAX_TENSORS
from bigbird_port.formats.links import file_size, plain_name
from bigbird_port.formats.runs import Run, RunStore, check_name, check_shape
from bigbird_port.formats.store import Stored

_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
# Types that no weight of this model has, and their size in bits.
_OTHER_TYPES = {
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
    "C64": 64,
}
Placed = tuple[str, Stored, Run]


class SafetensorsFile(RunStore):
    """One file as a Store. metadata: its strings. Raises ValueError naming the file and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.metadata, placed = _read_header(path)
        super().__init__(
            (path,), {name: stored for name, stored, _ in placed}, {name: (run,) for name, _, run in placed}
        )


class SafetensorsShards(RunStore):
    """The shards of an index (model.safetensors.index.json), which lie beside it, as one Store.

    Raises ValueError naming the file and what is wrong with it.
    """

    def __init__(self, index: Path) -> None:
        self.metadata: dict[str, str] = {}
        names = read_weight_map(index)
        tensors: dict[str, Stored] = {}
        runs: dict[str, tuple[Run, ...]] = {}
        shards = [index.parent / name for name in sorted(set(names.values()))]
        for path in shards:
            for name, stored, run in _read_header(path)[1]:
                if name in runs:
                    raise ValueError(f"{index}: {name} is both in {runs[name][0].path.name} and in {path.name}")
                tensors[name], runs[name] = stored, (run,)
            check_count(len(tensors), index)
        check_weight_map(names, {name: run.path.name for name, (run,) in runs.items()}, index)
        super().__init__((index, *shards), tensors, runs)


def read_weight_map(index: Path) -> dict[str, str]:
    """Return the file of each tensor from a transformers shard index; raises ValueError where it is damaged."""
    file_size(index)
    names = read_json_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index}: it has no weight_map: expected file names by tensor")
    for name, file in names.items():
        if not plain_name(file):
            raise ValueError(f"{index}: {str(file)[:80]!r} is not the name of a file beside it ({name[:80]!r})")
    if len(set(names.values())) > MAX_SHARDS:
        raise ValueError(f"{index}: it names more than {MAX_SHARDS} shards")
    return names


def check_weight_map(names: dict[str, str], found: dict[str, str], index: Path) -> None:
    """Raise ValueError unless every tensor is in the shard that the index names. Shards may hold more."""
    for name, file in names.items():
        if found.get(name) != file:
            place = f"which holds no such tensor; it is in {found[name]}" if name in found else "which lacks it"
            raise ValueError(f"{index}: {name[:80]!r} should be in {file}, {place}")


def check_count(count: int, path: Path) -> None:
    """Raise ValueError if there are more tensors than any model has."""
    if count > MAX_TENSORS:
        raise ValueError(f"{path}: it has more than {MAX_TENSORS} tensors")


def _read_header(path: Path) -> tuple[dict[str, str], list[Placed]]:
    size = file_size(path)
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ValueError(
                    f"its header of {length} bytes does not fit in its {size} bytes: truncated: fetch it again"
                )
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"its header has {length} bytes: expected at most {MAX_HEADER_BYTES}")
            text = file.read(length)
        if not text.startswith(b"{"):
            raise ValueError("its header does not begin with {")
        header = parse_json(text)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its __metadata__ is not an object of strings")
        check_count(len(header), path)
        placed = sorted(_placed(path, header, 8 + length), key=lambda each: (each[2].offset, each[2].end))
        _check_seamless(placed, 8 + length, size)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged: {error}") from None
    return metadata, placed


def _placed(path: Path, header: dict[str, Any], start: int) -> Iterator[Placed]:
    for name, value in header.items():
        check_name(name)
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{name}: expected dtype, shape and data_offsets")
        shape = check_shape(value["shape"], name)
        offsets = check_shape(value["data_offsets"], f"{name}: data_offsets")
        if len(offsets) != 2 or offsets[0] > offsets[1]:
            raise ValueError(f"{name}: data_offsets {list(offsets)[:4]}: expected the beginning and the end")
        stored, needed = _stored(name, value["dtype"], shape)
        if offsets[1] - offsets[0] != needed:
            raise ValueError(
                f"{name}: it has {offsets[1] - offsets[0]} bytes, {value['dtype']} {list(shape)} needs {needed}"
            )
        yield name, stored, Run(path, start + offsets[0], needed)


def _stored(name: str, dtype: object, shape: tuple[int, ...]) -> tuple[Stored, int]:
    if isinstance(dtype, str) and dtype in _TYPES:
        stored = Stored(DTYPES[_TYPES[dtype]], shape)
        return stored, stored.nbytes
    if isinstance(dtype, str) and dtype in _OTHER_TYPES:
        return Stored(None, shape, f"of type {dtype}"), (math.prod(shape) * _OTHER_TYPES[dtype] + 7) // 8
    raise ValueError(f"{name}: unknown dtype {str(dtype)[:40]!r}")


def _check_seamless(placed: list[Placed], start: int, size: int) -> None:
    at = start
    for name, _, run in placed:
        if run.offset != at:
            raise ValueError(f"{name} {'overlaps the tensor before it' if run.offset < at else 'follows a gap'}")
        at = run.end
    if at != size:
        raise ValueError(
            f"its tensors end at byte {at}, the file at {size}: "
            f"{'truncated: fetch it again' if at > size else 'trailing bytes'}"
        )
