"""Plans of Flax's msgpack parameter files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from bigbird_port.formats.file_plan import FilePlan, Planned
from bigbird_port.formats.flax.tree import nested
from bigbird_port.formats.tensorflow.builder import FileBuilder, nbytes

_ARRAY = 1  # extension type of an array
_CHUNK_BYTES = 1 << 30
_FIXEXT = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}


@dataclass(frozen=True)
class FlaxMsgpackFormat:
    """A nested map by slash-separated names, as flax.serialization.to_bytes packs it (byte-identical).

    An array is extension type 1: a packed (shape, dtype name, bytes) triple. One of more than ``chunk_bytes`` is a map
    of flat pieces, so that nothing comes near msgpack's limit of 4 GiB. Sources: flax/serialization.py of google/flax;
    spec.md of msgpack/msgpack. Raises ValueError for chunks that are not of 1 .. 2**30 bytes.
    """

    file_name: str = "flax_model.msgpack"
    chunk_bytes: int = _CHUNK_BYTES

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_bytes <= _CHUNK_BYTES:
            raise ValueError(f"chunk_bytes is {self.chunk_bytes}, but it must be from 1 to {_CHUNK_BYTES}")

    def plan(self, tensors: Mapping[str, Planned]) -> list[FilePlan]:
        """Return the one file; raises ValueError where a name is a leaf and a parent, or a dtype is not numeric."""
        for name, tensor in tensors.items():
            if tensor.dtype.hasobject or tensor.dtype.fields:
                raise ValueError(f"{name} is of dtype {tensor.dtype}: Flax's files hold numeric arrays only")
        file = FileBuilder(self.file_name)
        self._add_map(file, nested({name: (name, tensor) for name, tensor in tensors.items()}))
        return [file.plan()]

    def finish(self, tensors: Mapping[str, Planned], crc32c: Mapping[str, int]) -> list[FilePlan]:
        """Return nothing: no byte of the format depends on the values of all tensors."""
        return []

    def _add_map(self, file: FileBuilder, tree: Mapping[str, Any]) -> None:
        file.literal(_map_header(len(tree)))
        for key, value in tree.items():
            file.literal(msgpack.packb(key))
            if isinstance(value, dict):
                self._add_map(file, value)
            elif nbytes(value[1]) <= self.chunk_bytes:
                _add_array(file, value[0], value[1], value[1].shape)
            else:
                self._add_chunks(file, value[0], value[1])

    def _add_chunks(self, file: FileBuilder, name: str, tensor: Planned) -> None:
        """The map that stands for a large array: a mark, its shape, and flat pieces by number."""
        length, step = math.prod(tensor.shape), max(1, self.chunk_bytes // tensor.dtype.itemsize)
        starts = range(0, length, step)
        shape = {str(i): size for i, size in enumerate(tensor.shape)}
        file.literal(_map_header(3) + msgpack.packb("__msgpack_chunked_array__") + msgpack.packb(True))
        file.literal(msgpack.packb("shape") + msgpack.packb(shape) + msgpack.packb("chunks") + _map_header(len(starts)))
        for i, start in enumerate(starts):
            file.literal(msgpack.packb(str(i)))
            _add_array(file, name, tensor, (min(step, length - start),))


def _add_array(file: FileBuilder, name: str, tensor: Planned, shape: tuple[int, ...]) -> None:
    """An array of ``shape``, which is the whole tensor or its next piece."""
    size = nbytes(Planned(tensor.dtype, shape))
    triple = b"\x93" + msgpack.packb(shape) + msgpack.packb(tensor.dtype.name) + _bin_header(size)
    file.literal(_ext_header(len(triple) + size) + triple)
    file.slot(name, size)


def _map_header(length: int) -> bytes:
    return msgpack.Packer().pack_map_header(length)


def _bin_header(size: int) -> bytes:
    """Header of a byte string, in the fewest bytes."""
    return _sized((0xC4, 0xC5, 0xC6), size)


def _ext_header(size: int) -> bytes:
    """Header of an extension value of type _ARRAY, in the fewest bytes."""
    start = bytes([_FIXEXT[size]]) if size in _FIXEXT else _sized((0xC7, 0xC8, 0xC9), size)
    return start + bytes([_ARRAY])


def _sized(marks: tuple[int, int, int], size: int) -> bytes:
    """The mark for a size of one, two or four bytes, and the size."""
    width = 0 if size < 1 << 8 else 1 if size < 1 << 16 else 2
    return bytes([marks[width]]) + size.to_bytes(1 << width, "big")
