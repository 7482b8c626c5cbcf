"""Reader of TensorFlow checkpoints (the TensorBundle format), without TensorFlow.

An index table maps each name to a BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto): dtype, shape,
shard, offset, size and crc32c of the bytes, which lie in shards named ``.data-0000i-of-0000k``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from bigbird_port.checkpoint.table import masked_crc32c, read_table, read_varint

# tensorflow/core/framework/types.proto
_DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("bool"),
    19: np.dtype("<f2"),
}
_PIECE = 4 << 20


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies. dtype is None for a type that no weight has (strings, bfloat16, ...)."""

    dtype: np.dtype | None
    type_number: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    sliced: bool


class TensorBundle:
    """One checkpoint: ``entries`` by variable name, and their values on demand.

    prefix: path without ``.index``. Raises ValueError naming the file and what is wrong with it.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.index_path = Path(f"{prefix}.index")
        try:
            pairs = dict(read_table(self.index_path.read_bytes()))
            header = dict(_fields(pairs.pop(b"")))
            self.num_shards = _number(header, 1)
            if _number(header, 2) != 0:
                raise ValueError("it is big-endian, which is not supported")
            self.entries = {key.decode(): _entry(value) for key, value in pairs.items()}
        except OSError as error:
            raise ValueError(f"{self.index_path}: cannot be read: {error.strerror}") from None
        except KeyError:
            raise ValueError(f"{self.index_path}: it has no header: not a TensorFlow checkpoint index") from None
        except ValueError as error:
            raise ValueError(f"{self.index_path}: damaged index: {error}") from None
        self._check_shards()

    def shard_path(self, shard: int) -> Path:
        """Path of a data file."""
        return Path(f"{self.prefix}.data-{shard:05d}-of-{self.num_shards:05d}")

    def read(self, name: str) -> np.ndarray:
        """Return the values of one variable; raises ValueError if its bytes do not match their crc32c."""
        entry = self.entries[name]
        if entry.dtype is None or entry.sliced:
            found = "partitioned into slices" if entry.sliced else f"of TensorFlow type number {entry.type_number}"
            raise ValueError(f"{self.index_path}: {name} is {found}: expected a whole numeric variable")
        path, data, crc = self.shard_path(entry.shard), bytearray(entry.size), 0
        with path.open("rb") as file:
            file.seek(entry.offset)
            for start in range(0, entry.size, _PIECE):
                piece = memoryview(data)[start : start + _PIECE]
                if file.readinto(piece) != len(piece):
                    raise ValueError(f"{path}: truncated: {name} runs past its end")
                crc = google_crc32c.extend(crc, bytes(piece))
        if masked_crc32c(crc) != entry.crc32c:
            raise ValueError(f"{path}: {name} does not match its crc32c: the file is damaged; fetch it again")
        return np.frombuffer(data, entry.dtype).reshape(entry.shape)

    def _check_shards(self) -> None:
        ends = [0] * self.num_shards
        for name, entry in self.entries.items():
            if entry.shard >= self.num_shards:
                raise ValueError(f"{self.index_path}: {name} is in shard {entry.shard} of {self.num_shards}")
            if entry.dtype is not None and not entry.sliced:
                expected = math.prod(entry.shape) * entry.dtype.itemsize
                if entry.size != expected:
                    raise ValueError(f"{self.index_path}: {name} has {entry.size} bytes, its shape needs {expected}")
            ends[entry.shard] = max(ends[entry.shard], entry.offset + entry.size)
        for shard, end in enumerate(ends):
            path = self.shard_path(shard)
            if not path.is_file():
                raise ValueError(f"{path}: the index is there, but this data file is missing: fetch it as well")
            if path.stat().st_size < end:
                raise ValueError(
                    f"{path}: truncated: it has {path.stat().st_size} bytes, the index needs {end}; fetch it again"
                )


def _entry(data: bytes) -> Entry:
    fields = dict(_fields(data))
    number = _number(fields, 1)
    return Entry(
        dtype=_DTYPES.get(number),
        type_number=number,
        shape=_shape(fields.get(2, b"")),
        shard=_number(fields, 3),
        offset=_number(fields, 4),
        size=_number(fields, 5),
        crc32c=_number(fields, 6),
        sliced=7 in fields,
    )


def _shape(data: int | bytes) -> tuple[int, ...]:
    """TensorShapeProto: repeated dim (2), each with a size (1)."""
    if isinstance(data, int):
        raise ValueError("a shape in it is not a message")
    return tuple(_number(dict(_fields(dim)), 1) for number, dim in _fields(data) if number == 2 and _is_bytes(dim))


def _is_bytes(value: int | bytes) -> bool:
    return isinstance(value, bytes)


def _number(fields: dict[int, int | bytes], number: int) -> int:
    value = fields.get(number, 0)
    if not isinstance(value, int) or value >= 1 << 63:
        raise ValueError(f"field {number} in it is not a number in range")
    return value


def _fields(data: int | bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a protocol-buffer message."""
    if isinstance(data, int):
        raise ValueError("a field in it is not a message")
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = read_varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = read_varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field in it has the unknown kind {kind}")
        if at + size > len(data):
            raise ValueError("a field in it runs past its end")
        raw, at = data[at : at + size], at + size
        yield tag >> 3, raw if kind == 2 else struct.unpack("<Q" if kind == 1 else "<I", raw)[0]
