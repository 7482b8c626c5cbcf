"""What rounding does to the reference: every operand is off at random by what arithmetic of some precision loses.

Backward error analysis (Wilkinson; Higham, Accuracy and Stability of Numerical Algorithms, chapter 3) says that a sum
of n products in floating point is the exact sum of slightly other products: each is off by a share of itself. A
rounding is off by at most ``unit`` of a number, half a unit in its last place. A term of a sum that goes on for n steps
takes part in n / 2 roundings on average, whose errors are independent. Each is evenly spread, so its deviation is
unit / sqrt(3), and that of all of them is unit * sqrt(n / 6) (Higham and Mary 2019).

``lossy(x, n)`` is therefore ``x + (unit * sqrt(1 + n / 6) * |x| + least) * normal``, and ``x`` itself outside of
``arithmetic``. Libraries sum in blocks, so n counts up to 512. ``least`` is what may become 0 (underflow).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

# Half of a unit in the last place of 1. A bound that holds for float32 holds for what is wider.
UNITS = {"float64": 2.0**-24, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-9}
LEAST = {"float64": 2.0**-126, "float32": 2.0**-126, "float16": 2.0**-24, "bfloat16": 2.0**-126}
_SUMMED = 512  # terms of a sum whose errors add up
_NEAR = 16.0  # deviations from a kink within which either side of it may be taken


@dataclass(eq=False)
class Arithmetic:
    """The arithmetic of a dtype (empty: it is exact), and where it has been.

    kinks: by module, the inputs of activations in exact arithmetic.
    """

    dtype: str
    rng: np.random.Generator
    kinks: dict[str, np.ndarray] = field(default_factory=dict)


_IN_FORCE: ContextVar[Arithmetic | None] = ContextVar("arithmetic", default=None)


@contextmanager
def arithmetic(one: Arithmetic) -> Iterator[None]:
    """Compute in an arithmetic while the context lasts."""
    token = _IN_FORCE.set(one)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def is_exact() -> bool:
    """Return whether no arithmetic is in force that rounds."""
    one = _IN_FORCE.get()
    return one is None or not one.dtype


def lossy(x: np.ndarray, terms: int = 1) -> np.ndarray:
    """Return an operand of sums of so many terms, as the arithmetic in force takes it; ``x`` itself without one."""
    one = _IN_FORCE.get()
    if one is None or not one.dtype:
        return x
    share = UNITS[one.dtype] * np.sqrt(1 + min(terms, _SUMMED) / 6)
    found: np.ndarray = x + (share * np.abs(x) + LEAST[one.dtype]) * one.rng.standard_normal(x.shape)
    return found


def lossy_as(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return ``y``, off by as much as one rounding of ``x``."""
    rounded = lossy(x)
    return y if rounded is x else y + (rounded - x)


def either_side(module: str, x: np.ndarray) -> np.ndarray:
    """Return the input of an activation's slope; near 0, where slopes may jump, that on the other side.

    Near means within 16 times what rounding moves the row by. One element may fall on either side of a kink, and all
    that are near enough are put on the other, so that what that does is never left to chance.
    """
    one = _IN_FORCE.get()
    if one is None:
        return x
    if not one.dtype:
        one.kinks[module] = x
    if module not in one.kinks:
        return x
    exact = one.kinks[module]
    moved = np.sqrt(np.square(x - exact).mean(axis=-1, keepdims=True))
    return np.where(np.abs(exact) < _NEAR * moved, -exact, x)
