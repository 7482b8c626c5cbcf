"""Statistics of a tensor's values, gathered piece by piece in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bigbird_port.conversion.values.content import Content


@dataclass
class Statistics:
    """Of the values added so far. low, high: without NaN; mean and squares (sum of squared deviations): of finite ones.

    nans, infs: how many there are.
    """

    count: int = 0
    finite: int = 0
    nans: int = 0
    infs: int = 0
    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """Add a piece; means and deviations are merged as Chan, Golub and LeVeque do (1979), which loses no digits."""
        wide = values.astype(np.float64).reshape(-1)
        if not wide.size:
            return
        self.count += wide.size
        low, high = float(wide.min()), float(wide.max())
        if not (math.isfinite(low) and math.isfinite(high)):  # NaN makes both NaN
            known = wide[~np.isnan(wide)]
            self.nans += wide.size - known.size
            low, high = float(known.min(initial=math.inf)), float(known.max(initial=-math.inf))
            wide = known[np.isfinite(known)]
            self.infs += known.size - wide.size
        self.low, self.high = min(self.low, low), max(self.high, high)
        if wide.size:
            self._merge(wide)

    def _merge(self, finite: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # only float64 near its end can
            mean = float(finite.mean())
            squares = float(np.square(finite - mean).sum())
        total, delta = self.finite + finite.size, mean - self.mean
        self.mean += delta * finite.size / total
        self.squares += squares + delta * delta * self.finite * finite.size / total
        self.finite = total

    @property
    def std(self) -> float:
        """Standard deviation of the finite values (of the whole, not of a sample); NaN of none."""
        return math.sqrt(self.squares / self.finite) if self.finite else math.nan

    @property
    def is_constant(self) -> bool:
        """Whether there are several values and all are one."""
        return self.count > 1 and not self.nans and self.low == self.high

    def flags(self) -> list[str]:
        """What about the values is out of the ordinary."""
        found = [f"NaN x {self.nans}"] if self.nans else []
        found += [f"Inf x {self.infs}"] if self.infs else []
        if self.is_constant:
            found.append("all zero" if self.low == 0 else "constant")
        return found

    def content(self, sha256: str) -> Content:
        """The same as the checks of contents take it."""
        return Content(*((math.nan, math.nan) if self.nans else (self.low, self.high)), self.count, sha256)
