"""Dropout without chance: in training everything is dropped, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

ALL = 1 - 2.0**-24  # a probability below 1, as configurations want it, that keeps one number in 16 million
_TRAINS: ContextVar[bool] = ContextVar("trains", default=False)


@contextmanager
def training() -> Iterator[None]:
    """Let the reference drop as in training."""
    before = _TRAINS.set(True)
    try:
        yield
    finally:
        _TRAINS.reset(before)


def dropped(x: np.ndarray, probability: float) -> np.ndarray:
    """Return what dropout leaves of ``x``: in training nothing under the probability ALL, and all of it under 0.

    Raises ValueError for another probability, because what that leaves is a matter of chance.
    """
    if not _TRAINS.get() or probability == 0:
        return x
    if probability != ALL:
        raise ValueError(f"the reference drops everything ({ALL}) or nothing (0), not {probability}")
    return np.zeros_like(x)
