"""What a tap may differ by: one table, each entry with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """bound: allowed error of an element, relative to what parity/metrics.py says. reason: where the bound comes from.

    floor: the least scale to relate errors to.
    """

    bound: float
    reason: str
    floor: float = 0.0


FLOAT32_CPU = Tolerance(
    1e-5,
    "float32 keeps 6e-8 of a value; over a layer's sums both frameworks stay within 2e-6 of the original's outputs "
    "on every golden case, and 1e-5 leaves a factor of five for another order of summation",
)
