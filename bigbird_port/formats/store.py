"""What every reader of weights offers: names, types and shapes at once, values in pieces on demand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

_ALIGNMENT = 64  # bytes; what XLA wants of memory that it did not allocate
PIECE_BYTES = 4 << 20  # reads of this size are as fast as larger ones and keep memory small


@dataclass(frozen=True)
class Stored:
    """Type and shape of one tensor in a file. dtype: little-endian; None where it is no numeric array (type_name)."""

    dtype: np.dtype | None
    shape: tuple[int, ...]
    type_name: str = ""

    @property
    def nbytes(self) -> int:
        """Size in bytes; 0 where it is no numeric array."""
        return math.prod(self.shape) * self.dtype.itemsize if self.dtype else 0


class Store(Protocol):
    """One set of tensors in one or several files.

    files: every file that it reads, for hashing. tensors: in the order in which reading is fastest.
    """

    files: tuple[Path, ...]
    tensors: Mapping[str, Stored]

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the values of one tensor in C order as 1-D arrays of at most PIECE_BYTES.

        Raises ValueError, naming the file and the tensor, where the data end too soon or fail their checksum.
        """
        ...


def read(store: Store, name: str) -> np.ndarray:
    """Return one tensor whole, in memory that JAX takes over without a copy.

    Raises ValueError as ``pieces`` does, or where it is no numeric array.
    """
    stored = store.tensors[name]
    if stored.dtype is None:
        raise ValueError(f"{store.files[0]}: {name} is {stored.type_name}: expected a numeric array")
    memory = np.empty(stored.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    values, at = memory[start : start + stored.nbytes].view(stored.dtype), 0
    for piece in store.pieces(name):
        values[at : at + piece.size] = piece
        at += piece.size
    return values.reshape(stored.shape)
