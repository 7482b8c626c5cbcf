"""What two runs are compared by behind an update: weights, slots, and what the update said."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigbird_port.schema.table import weights_of
from bigbird_port.training.resuming import read_training
from parity.measure.metrics import Difference, measure
from parity.measure.tolerances import Tolerance
from parity.training.rules import Arrays
from parity.training.runs import Stepped, kept_as

LEAST_WEIGHT = 0.05  # a weight is related to itself, and to this where it is smaller
LEAST_MOMENT = 1e-3  # of the gradients' norm: a mean of gradients that cancel is as uncertain as they are
_IDLE_GRADIENT = 1e-6  # of the gradients' norm: a gradient that is rounding alone is smaller by far


@dataclass(frozen=True, eq=False)
class After:
    """What a run is behind one update. rates: the sum of rates so far."""

    said: Stepped
    state: Arrays
    rates: float


@dataclass(frozen=True)
class Known:
    """What is known of the run whoever takes the steps."""

    optimizer: str
    peak: float
    idle: frozenset[str]


@functools.lru_cache(maxsize=64)
def known(out: Path) -> Known:
    """Return what a folder tells of its run."""
    resumed = read_training(out, kept_as(out), None)
    idle = frozenset(row.name for row in weights_of(resumed.config) if row.idle)
    training = resumed.state.training
    return Known(training.optimizer, training.learning_rate, idle)


@dataclass(frozen=True, eq=False)
class Compared:
    """One pair of arrays. kind: of tolerance; empty where ``bound`` is derived and not measured."""

    kind: str
    tap: str
    sides: tuple[np.ndarray, np.ndarray]
    scale: float
    bound: float = 0.0

    def difference(self, tolerance: Tolerance) -> Difference:
        """Measure it."""
        return measure(*self.sides, tolerance, scale=self.scale)


def compared(value: After, reference: After, of: Known, partial: bool = False) -> Iterator[Compared]:
    """Yield every pair; partial: ``reference`` need not hold the state.

    A weight that no loss depends on is compared by what rounding can have moved it, its slots by what rounding is.
    """
    said, other = value.said, reference.said
    yield Compared("loss", "loss", _pair(said.loss, other.loss), 1.0)
    yield Compared("rate", "learning rate", _pair(said.rate, other.rate), of.peak)
    yield Compared("norm", "gradient norm", _pair(said.norm, other.norm), other.norm)
    names = reference.state if partial else dict.fromkeys((*reference.state, *value.state))
    for name in names:
        if name not in value.state or name not in reference.state:
            yield Compared("", f"after.{name}", (np.array([np.nan]), np.zeros(1)), 1.0)
            continue
        a, b = value.state[name], reference.state[name]
        weight, _, kind = name.partition("/")
        if weight in of.idle:
            yield Compared("", f"after.{name}", (a, b), 1.0, _rounding(kind, b, value.rates, other.norm))
        elif not kind:
            yield Compared("weight", f"after.{name}", (a, b), LEAST_WEIGHT)
        else:
            least = LEAST_MOMENT * other.norm if kind == "m" else 0.0
            yield Compared(f"slot {kind}", f"after.{name}", (a, b), max(float(np.abs(b).max()), least))
            if kind != "m":
                yield Compared("drift", f"drift.{name}", _pair(a.sum(), b.sum()), float(np.abs(b).sum()))


def _rounding(kind: str, b: np.ndarray, rates: float, norm: float) -> float:
    """How far rounding alone may have moved a weight that no loss depends on (kind ""), or a slot of it.

    Of a weight: an update is at most the root of its size times the larger of its root mean square and 1e-3 (Adafactor,
    which divides by the size of a gradient), on either side.
    """
    if kind == "m":
        return _IDLE_GRADIENT * norm
    if kind:
        return (_IDLE_GRADIENT * norm) ** 2
    size = max(float(np.sqrt(np.mean(b**2))), 1e-3)
    return 2 * rates * size * float(np.sqrt(b.size))


def _pair(a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a], np.float64), np.array([b], np.float64)


def errors(value: After, reference: After, out: Path) -> Iterator[tuple[str, str, float]]:
    """Yield (kind, tap, error) of every pair whose tolerance is measured."""
    for pair in compared(value, reference, known(out)):
        if pair.kind:
            found = measure(*pair.sides, 1.0, scale=pair.scale)
            yield pair.kind, pair.tap, float("inf") if found.problem else found.would_pass
