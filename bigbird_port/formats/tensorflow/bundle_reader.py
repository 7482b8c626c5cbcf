"""Reader of TensorFlow checkpoints (the TensorBundle format), without TensorFlow.

An index table maps each name to a BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto): dtype, shape,
shard, offset, size and crc32c of the bytes, which lie in shards named ``.data-0000i-of-0000k``. A partitioned
variable has an entry that lists its slices, which have entries of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigbird_port.files.reading import is_there, read_whole
from bigbird_port.formats.dtypes import DTYPES
from bigbird_port.formats.limits import MAX_INDEX_BYTES, MAX_RANK, MAX_SHARDS, MAX_TENSORS
from bigbird_port.formats.links import file_size
from bigbird_port.formats.runs import Run, RunStore, check_apart, check_name, read_run
from bigbird_port.formats.store import PIECE_BYTES, Stored, read
from bigbird_port.formats.tensorflow.protobuf_fields import bytes_of, last_fields, number_of, repeated
from bigbird_port.formats.tensorflow.slices import (
    Slice,
    check_tiling,
    cut_along_first_axis,
    parse_slice,
    resolve,
    slice_key,
)
from bigbird_port.formats.tensorflow.table_reader import read_table

# tensorflow/core/framework/types.proto
_TYPES: dict[int, str] = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
_STRING = 7
_LAST_TYPE = 100  # numbers above mean references, which no checkpoint holds


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies. dtype is None for a type that no weight has; slices: of a partitioned variable."""

    dtype: np.dtype | None
    type_number: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    slices: tuple[Slice, ...]

    @property
    def stored(self) -> Stored:
        """Its type and shape."""
        if self.dtype is not None:
            return Stored(self.dtype, self.shape)
        number = self.type_number
        return Stored(None, self.shape, "a string" if number == _STRING else f"of TensorFlow type number {number}")


class TensorBundle(RunStore):
    """One checkpoint: a Store, and ``entries`` by variable name.

    prefix: path without ``.index``. Raises ValueError naming the file and what is wrong with it.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.index_path = Path(f"{prefix}.index")
        if file_size(self.index_path) > MAX_INDEX_BYTES:
            raise ValueError(f"{self.index_path}: damaged index: it has more than {MAX_INDEX_BYTES} bytes")
        try:
            self.num_shards, whole, self._parts = _parse(read_whole(self.index_path, MAX_INDEX_BYTES))
        except OSError as error:
            raise ValueError(f"{self.index_path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{self.index_path}: damaged index: {error}") from None
        self._check_shards(whole)
        runs = {name: tuple(self._run(part) for part in self._parts.get(name, (whole[name],))) for name in whole}
        check_apart(runs)
        by_place = sorted(whole, key=lambda name: min((run.path, run.offset) for run in runs[name]))
        self.entries = {name: whole[name] for name in by_place}
        shards = (self.shard_path(shard) for shard in range(self.num_shards))
        super().__init__((self.index_path, *shards), {name: whole[name].stored for name in by_place}, runs)

    def shard_path(self, shard: int) -> Path:
        """Path of a data file."""
        return Path(f"{self.prefix}.data-{shard:05d}-of-{self.num_shards:05d}")

    def read(self, name: str) -> np.ndarray:
        """Return the values of one variable; raises ValueError if its bytes do not match their crc32c."""
        return read(self, name)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the values of one variable as Store.pieces does; one cut along several axes is made whole first."""
        entry = self.entries[name]
        if entry.dtype is None or cut_along_first_axis(entry.slices, entry.shape):
            yield from super().pieces(name)
            return
        values = np.empty(entry.shape, entry.dtype)
        for part, extents, run in zip(self._parts[name], entry.slices, self.runs[name], strict=True):
            read_parts = list(read_run(run, entry.dtype, name))
            block = np.concatenate(read_parts) if read_parts else np.empty(0, entry.dtype)
            values[tuple(slice(start, start + length) for start, length in extents)] = block.reshape(part.shape)
        flat, size = values.reshape(-1), PIECE_BYTES // entry.dtype.itemsize
        for start in range(0, flat.size, size):
            yield flat[start : start + size]

    def _run(self, entry: Entry) -> Run:
        return Run(self.shard_path(entry.shard), entry.offset, entry.size, entry.crc32c)

    def _check_shards(self, whole: Mapping[str, Entry]) -> None:
        ends = [0] * self.num_shards
        for name, entry in whole.items():
            for part in self._parts.get(name, (entry,)):
                if part.shard >= self.num_shards:
                    raise ValueError(f"{self.index_path}: {name} is in shard {part.shard} of {self.num_shards}")
                ends[part.shard] = max(ends[part.shard], part.offset + part.size)
        for shard, end in enumerate(ends):
            path = self.shard_path(shard)
            if not is_there(path):
                raise ValueError(f"{path}: the index is there, but this data file is missing: fetch it as well")
            if (size := file_size(path)) < end:
                raise ValueError(f"{path}: truncated: it has {size} bytes, the index needs {end}; fetch it again")


def _parse(data: bytes) -> tuple[int, dict[str, Entry], dict[str, tuple[Entry, ...]]]:
    """The number of shards, the entry of each variable, and for each partitioned one the entries of its slices."""
    raw: dict[bytes, bytes] = {}
    for key, value in read_table(data):
        raw[key] = value
        if len(raw) > MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS} entries")
    header = raw.pop(b"", None)
    if header is None:
        raise ValueError("it has no header: not a TensorFlow checkpoint index")
    fields = last_fields(header)
    if number_of(fields, 2) != 0:
        raise ValueError("it is big-endian, which is not supported")
    num_shards = number_of(fields, 1)
    if not 1 <= num_shards <= MAX_SHARDS:
        raise ValueError(f"it has {num_shards} shards: expected 1 to {MAX_SHARDS}")
    cuts = {key: raw.pop(key) for key in [key for key in raw if key.startswith(b"\0")]}
    whole, parts = {}, {}
    for key, value in raw.items():
        name = check_name(key.decode())
        found = _parts_of(key, value, cuts)
        whole[name] = _entry(value, name, tuple(found))
        if found:
            _check_parts(name, whole[name], found)
            parts[name] = tuple(found.values())
    if cuts:
        raise ValueError(f"the slice {min(cuts)[:80]!r} belongs to no variable")
    return num_shards, whole, parts


def _entry(data: bytes, name: str, slices: tuple[Slice, ...] = ()) -> Entry:
    fields = last_fields(data)
    number = number_of(fields, 1)
    if not 1 <= number <= _LAST_TYPE:
        raise ValueError(f"{name} is of type number {number}, which TensorFlow does not have")
    entry = Entry(
        dtype=DTYPES[_TYPES[number]] if number in _TYPES else None,
        type_number=number,
        shape=_shape(bytes_of(fields, 2), name),
        shard=number_of(fields, 3),
        offset=number_of(fields, 4),
        size=number_of(fields, 5),
        crc32c=number_of(fields, 6),
        slices=slices,
    )
    if entry.dtype is not None and not slices and entry.size != entry.stored.nbytes:
        raise ValueError(f"{name} has {entry.size} bytes, its shape {_text(entry.shape)} needs {entry.stored.nbytes}")
    return entry


def _shape(data: bytes, name: str) -> tuple[int, ...]:
    """TensorShapeProto: repeated dim (2), each with a size (1)."""
    sizes: list[int] = []
    for dim in repeated(data, 2):
        sizes.append(number_of(last_fields(dim), 1))
        if len(sizes) > MAX_RANK:
            raise ValueError(f"{name} has more than {MAX_RANK} axes")
    return tuple(sizes)


def _parts_of(key: bytes, data: bytes, cuts: dict[bytes, bytes]) -> dict[Slice, Entry]:
    """The slices of a variable in order, with their entries, which are taken out of ``cuts``."""
    shape = _shape(bytes_of(last_fields(data), 2), "a variable")
    found: dict[Slice, Entry] = {}
    for raw in repeated(data, 7):
        extents = parse_slice(raw, len(shape))
        entry = cuts.pop(slice_key(key, extents), None)
        if entry is None:
            raise ValueError(f"{key.decode()}: its slice {list(extents)} is not there, or there twice")
        found[resolve(extents, shape)] = _entry(entry, key.decode())
    return dict(sorted(found.items()))


def _check_parts(name: str, whole: Entry, parts: Mapping[Slice, Entry]) -> None:
    for extents, part in parts.items():
        expected = tuple(length for _, length in extents)
        if part.shape != expected or part.type_number != whole.type_number:
            raise ValueError(f"{name}: a slice of it is {_text(part.shape)}, expected {_text(expected)} and one type")
    if whole.dtype is None:
        raise ValueError(f"{name} is partitioned and {whole.stored.type_name}: expected a numeric variable")
    try:
        check_tiling(tuple(parts), whole.shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _text(shape: tuple[int, ...]) -> str:
    return str(list(shape))
