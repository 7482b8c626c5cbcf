"""Two arrays compared value by value, piece by piece: bits first, then how far apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass
class Comparison:
    """What two arrays have in common, as far as they were added.

    count: values compared. differing: how many differ in their bits after an exact change to a common type.
    max_abs, max_rel: largest |a - b|, and that divided by the larger of |a| and |b|; infinite where just one is NaN
    or Inf. max_ulp: in steps of the narrower type; None where a NaN differs.
    """

    count: int = 0
    differing: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_ulp: int | None = 0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Add two pieces of one length."""
        self.count += a.size
        common = _common_type(a.dtype, b.dtype)
        wide_a, wide_b = a.astype(common, copy=False), b.astype(common, copy=False)
        bits = np.dtype(f"u{common.itemsize}")
        differ = np.ascontiguousarray(wide_a).view(bits) != np.ascontiguousarray(wide_b).view(bits)
        if differ.any():
            self.differing += int(differ.sum())
            self._measure(wide_a[differ], wide_b[differ], _narrower(a.dtype, b.dtype))

    def _measure(self, a: np.ndarray, b: np.ndarray, narrow: np.dtype) -> None:
        x, y = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            apart = np.abs(x - y)
            relative = apart / np.maximum(np.abs(x), np.abs(y))
        unlike = ~(np.isfinite(x) & np.isfinite(y))
        apart[unlike], relative[unlike] = math.inf, math.inf
        relative[apart == 0] = 0.0  # zeros of either sign
        self.max_abs = max(self.max_abs, float(apart.max()))
        self.max_rel = max(self.max_rel, float(relative.max()))
        if self.max_ulp is not None:
            steps = None if np.isnan(x).any() or np.isnan(y).any() else _steps(a, b, narrow)
            self.max_ulp = None if steps is None else max(self.max_ulp, steps)


def _common_type(a: np.dtype, b: np.dtype) -> np.dtype:
    """A type that holds the values of both exactly."""
    if a == b:
        return a
    return np.dtype(np.float64 if max(a.itemsize, b.itemsize) > 4 else np.float32)


def _narrower(a: np.dtype, b: np.dtype) -> np.dtype:
    """The type with fewer bits; of the two half types bfloat16, which has fewer digits."""
    return min(a, b, key=lambda dtype: (dtype.itemsize, dtype.name != "bfloat16"))


def _steps(a: np.ndarray, b: np.ndarray, narrow: np.dtype) -> int:
    """The largest number of values of ``narrow`` that lie between two."""
    with np.errstate(over="ignore"):
        x, y = _ordered(a.astype(narrow)), _ordered(b.astype(narrow))
    return int((np.maximum(x, y).view(np.uint64) - np.minimum(x, y).view(np.uint64)).max())


def _ordered(values: np.ndarray) -> np.ndarray:
    """int64 numbers in the order of the values, one apart where the values are neighbours."""
    bits = values.view(np.dtype(f"i{values.dtype.itemsize}")).astype(np.int64)
    sign_bit = -(1 << values.dtype.itemsize * 8 - 1)
    return np.where(bits < 0, sign_bit - bits, bits)


def together(a: Iterator[np.ndarray], b: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield both sides in pieces of equal length, however each is cut; raises ValueError if one ends first."""
    a, b = (piece for piece in a if piece.size), (piece for piece in b if piece.size)
    left, right = next(a, None), next(b, None)
    while left is not None and right is not None:
        size = min(left.size, right.size)
        yield left[:size], right[:size]
        left = left[size:] if left.size > size else next(a, None)
        right = right[size:] if right.size > size else next(b, None)
    if left is not None or right is not None:
        raise ValueError("one ends before the other")
