"""Quantiles of numbers that arrive in pieces: exact for few, from a histogram for many."""

from __future__ import annotations

import numpy as np

EXACT = 1 << 20  # numbers up to which all are kept (8 MiB)
STEPS = 64  # bins of equal width between two powers of 2
_LOWEST = -1075  # below the exponent of the least float64
_OCTAVES = 1024 - _LOWEST + 1


class Quantiles:
    """Quantiles of numbers >= 0: the least number that a share of all does not exceed.

    Up to EXACT numbers are kept and the quantile is one of them. Of more, a histogram is kept (1 MiB), and the quantile
    is the upper edge of its bin: never less than the exact one, and at most 1/64 more. The maximum is always exact.
    """

    def __init__(self, size: int) -> None:
        """Make room; size: the most numbers that will be added."""
        self.count, self.max = 0, 0.0
        self._kept = np.empty(size) if size <= EXACT else None
        self._bins = np.zeros(0 if size <= EXACT else _OCTAVES * STEPS, np.int64)
        self._sorted = False

    def add(self, numbers: np.ndarray) -> None:
        """Add finite numbers >= 0."""
        if not numbers.size:
            return
        if self._kept is not None:
            self._kept[self.count : self.count + numbers.size] = numbers
            self._sorted = False
        else:
            mantissa, exponent = np.frexp(numbers)  # numbers = mantissa * 2**exponent, mantissa 0 or in [1/2, 1)
            bins = (exponent - _LOWEST) * STEPS + np.ceil((mantissa * 2 - 1) * STEPS).astype(np.int64)
            bins = np.where(mantissa == 0, 0, bins)
            self._bins += np.bincount(bins, minlength=len(self._bins))
        self.count += numbers.size
        self.max = max(self.max, float(numbers.max()))

    def at(self, share: float) -> float:
        """The quantile; raises ValueError if nothing was added."""
        if not self.count:
            raise ValueError("there is no quantile of no numbers")
        rank = max(0, int(np.ceil(share * self.count)) - 1)
        if self._kept is not None:
            if not self._sorted:
                self._kept[: self.count].sort()
                self._sorted = True
            return float(self._kept[rank])
        chosen = int(np.searchsorted(self._bins.cumsum(), rank + 1))
        octave, step = divmod(chosen, STEPS)
        return min(self.max, float(np.ldexp((1 + step / STEPS) / 2, octave + _LOWEST))) if chosen else 0.0
