"""Partitioned variables of TensorFlow checkpoints: the keys of their slices, and how these make up the whole.

Keys: EncodeTensorNameSlice in tensorflow/core/util/saved_tensor_slice_util.cc, over the order-preserving numbers
and strings of tensorflow/core/lib/strings/ordered_code.cc. Legend: a slice has one (start, length) per axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bigbird_port.formats.limits import MAX_GRID_SLICES
from bigbird_port.formats.tensorflow.protobuf_fields import last_fields, number_of, repeated

Slice = tuple[tuple[int, int], ...]
FULL = -1  # the length that stands for a whole axis


def parse_slice(data: bytes, rank: int) -> Slice:
    """Return the (start, length) of a TensorSliceProto; raises ValueError if it has not ``rank`` axes."""
    extents = []
    for raw in repeated(data, 1):
        fields = last_fields(raw)
        extents.append((number_of(fields, 1), number_of(fields, 2)) if 2 in fields else (0, FULL))
        if len(extents) > rank:
            break
    if len(extents) != rank:
        raise ValueError(f"a slice of a variable with {rank} axes has another number of axes")
    return tuple(extents)


def slice_key(name: bytes, extents: Slice) -> bytes:
    """Return the key under which the index holds a slice."""
    escaped = b"".join({0x00: b"\x00\xff", 0xFF: b"\xff\x00"}.get(byte, bytes([byte])) for byte in name)
    numbers = b"".join(_signed(start) + _signed(length) for start, length in extents)
    return _unsigned(0) + escaped + b"\x00\x01" + _unsigned(len(extents)) + numbers


def _unsigned(value: int) -> bytes:
    """OrderedCode::WriteNumIncreasing: a count of bytes, then the value in that many, big-endian."""
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(raw)]) + raw


def _signed(value: int) -> bytes:
    """OrderedCode::WriteSignedNumIncreasing: n bytes carry 7n - 1 bits; the leading bits tell n and the sign."""
    magnitude = ~value if value < 0 else value
    size = magnitude.bit_length() // 7 + 1
    header = ((1 << size) - 1) << (10 * 8 - size)  # n ones at the left of ten bytes
    shifted = header >> (10 - size) * 8
    return ((value & ((1 << size * 8) - 1)) ^ shifted).to_bytes(size, "big")


def resolve(extents: Slice, shape: Sequence[int]) -> Slice:
    """Return a slice with whole axes written out; raises ValueError where it leaves the variable."""
    resolved = tuple((0, size) if length == FULL else (start, length) for (start, length), size in _zip(extents, shape))
    if any(start + length > size for (start, length), size in _zip(resolved, shape)):
        raise ValueError(f"the slice {list(resolved)} leaves its variable of shape {list(shape)}")
    return resolved


def _zip(extents: Slice, shape: Sequence[int]) -> list[tuple[tuple[int, int], int]]:
    return list(zip(extents, shape, strict=True))


def cut_along_first_axis(slices: Sequence[Slice], shape: Sequence[int]) -> bool:
    """Whether every slice holds whole rows, so that in order of their starts they are the variable in C order."""
    return all(all(part == (0, size) for part, size in _zip(each[1:], shape[1:])) for each in slices)


def check_tiling(slices: Sequence[Slice], shape: Sequence[int]) -> None:
    """Raise ValueError unless the slices make up the whole variable and do not overlap."""
    if sum(math.prod(length for _, length in each) for each in slices) != math.prod(shape):
        raise ValueError("its slices do not make up the whole variable")
    if cut_along_first_axis(slices, shape):
        at = 0
        for start, length in sorted(each[0] for each in slices) if shape else []:
            if start != at:
                raise ValueError("its slices overlap")
            at += length
        return
    if len(slices) > MAX_GRID_SLICES:
        raise ValueError(f"it is cut into {len(slices)} slices along several axes: expected at most {MAX_GRID_SLICES}")
    bounds = np.array(slices, np.int64)
    starts, ends = bounds[:, :, 0], bounds.sum(axis=2)
    meet = np.ones((len(slices), len(slices)), bool)
    for axis in range(len(shape)):
        meet &= starts[:, None, axis] < ends[None, :, axis]
    if np.any(meet & meet.T & ~np.eye(len(slices), dtype=bool)):
        raise ValueError("its slices overlap")
