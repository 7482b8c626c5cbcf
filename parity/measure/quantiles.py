"""Quantiles of numbers that arrive in pieces. They are exact for few numbers, and come from a histogram for many."""

from __future__ import annotations

import numpy as np

EXACT = 1 << 17  # numbers up to which all are kept (1 MiB)
# A float64 >= 0 grows with its bits: 11 of exponent, 52 of mantissa. The first 6 of these tell 64 bins of equal width
# between two powers of 2; the others are rounded up.
_DROPPED = np.uint64(52 - 6)
_ROUND_UP = np.uint64((1 << 46) - 1)
_BINS = 1 << (11 + 6)


class Quantiles:
    """Quantiles of numbers >= 0: the least number that a share of all does not exceed.

    Up to EXACT numbers are kept and the quantile is one of them. Of more, a histogram is kept (1 MiB), and the quantile
    is the upper edge of its bin: never less than the exact one, and at most 1/64 more (subnormal numbers aside). The
    maximum is always exact.
    """

    def __init__(self, size: int) -> None:
        """Make room; size: the most numbers that will be added."""
        self.count, self.max = 0, 0.0
        self._kept = np.empty(size) if size <= EXACT else None
        self._bins = np.zeros(0 if size <= EXACT else _BINS, np.int64)
        self._sorted = False

    def add(self, numbers: np.ndarray) -> None:
        """Add finite numbers >= 0."""
        if not numbers.size:
            return
        if self._kept is not None:
            self._kept[self.count : self.count + numbers.size] = numbers
            self._sorted = False
        else:
            bins = np.abs(numbers, dtype=np.float64).view(np.uint64)  # an array of its own; -0 has other bits
            bins += _ROUND_UP
            bins >>= _DROPPED
            bins = bins.view(np.int64)
            first = int(bins.min())
            counts = np.bincount(bins - first)
            self._bins[first : first + len(counts)] += counts
        self.count += numbers.size
        self.max = max(self.max, float(numbers.max()))

    def at(self, share: float) -> float:
        """Return the least number that a share of all does not exceed; raises ValueError if nothing was added."""
        if not self.count:
            raise ValueError("there is no quantile of no numbers")
        rank = max(0, int(np.ceil(share * self.count)) - 1)
        if self._kept is not None:
            if not self._sorted:
                self._kept[: self.count].sort()
                self._sorted = True
            return float(self._kept[rank])
        chosen = int(np.searchsorted(self._bins.cumsum(), rank + 1))
        return min(self.max, float((np.uint64(chosen) << _DROPPED).view(np.float64)))
