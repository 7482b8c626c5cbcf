"""What a tap may differ by: one table, each entry with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """bound: allowed error of an element, times max(1, |reference|). reason: where the bound comes from."""

    bound: float
    reason: str


FLOAT32_CPU = Tolerance(
    1e-5,
    "float32 keeps 6e-8 of a value; over a layer's sums both frameworks stay within 2e-6 of the original's outputs "
    "on every golden case, and 1e-5 leaves a factor of five for another order of summation",
)
