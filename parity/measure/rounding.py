"""What rounding alone does to every tap, loss and gradient of this very model, on these very inputs.

The table of tolerances was measured on models whose activations are about 1. Others lose more: where scores of
attention are large, where a LayerNorm divides by next to nothing, where terms of a gradient cancel. How much more is
measured, wherever a tap is beyond the table's tolerance: the float64 reference runs several times in an arithmetic
that is off at random by what the frameworks' is (parity/reference/rounding.py). What a tap moves by is its ``noise``.

An element may then differ by FACTOR times the noise, which is the larger of two root mean squares: over the runs at
this element, and over the runs and its row (last axis). docs/tolerances.md derives the factor. A few runs come first.
Where these say that an element is red, more runs decide, because few may all be small by chance.

Nothing of this depends on the frameworks, so no fault of theirs can widen what they are judged by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bigbird_port.families.family import Step
from parity.given.inputs import Inputs

FACTOR = 10.0
HOPELESS = 10.0  # how often what is allowed an error must be, for more runs not to be asked
_LARGE = 1 << 22  # elements of all hidden states, from which on fewer runs do
_RUNS, _FEW_RUNS = 4, 2
_SURER = 6  # times as many runs, where the few say that an element is red
Taps = Mapping[str, np.ndarray]


class Rounding:
    """What rounding does to a reference on some inputs, found out when it is asked for.

    dtype: what the frameworks compute in. times: as many runs as else.
    """

    def __init__(self, reference: Any, inputs: Inputs, dtype: str, times: int = 1) -> None:
        config = reference.config
        elements = inputs["input_ids"].size * config.hidden_size * config.num_hidden_layers
        number = times * (_FEW_RUNS if elements > _LARGE else _RUNS)
        self._surer: Rounding | None = None
        self._reference, self._inputs, self._dtype, self._config = reference, inputs, dtype, config
        self._runs = [reference.inexact(dtype, seed) for seed in range(number)]
        self._steps: tuple[Step, ...] = tuple(config.family.steps(config))
        self._now, self._reached = self._steps[0], -1
        self._exact: Taps = {}
        self._fed: np.ndarray | None = None
        self._positions: slice | None = None
        self._streams: list[Any] = []
        self._taps: list[dict[str, np.ndarray]] = []
        self._loss: tuple[Inputs, float] | None = None
        self._gradients: tuple[Inputs, Taps] | None = None
        self._known: dict[tuple[str, str], np.ndarray] = {}
        self._ran: dict[str, list[dict[str, np.ndarray]]] = {}
        self._found: list[Taps] = []

    def on(self, inputs: Inputs) -> Rounding:
        """Return the same for other inputs."""
        return Rounding(self._reference, inputs, self._dtype)

    def at(self, step: Step, exact: Taps, fed: np.ndarray | None = None, positions: slice | None = None) -> None:
        """Say which stage is compared from now on.

        exact: what the reference computed there. fed: what it was given. positions: those that the head scores.
        """
        self._now, self._exact, self._fed, self._positions = step, exact, fed, positions
        self._known, self._ran = {}, {}
        if self._surer:
            self._surer.at(step, exact, fed, positions)

    def leave(self) -> None:
        """Drop what is held of the present stage."""
        self.at(self._now, {})

    def at_loss(self, labels: Inputs, exact: float) -> None:
        """Say that the loss of the present stage is compared."""
        self._loss = labels, exact
        if self._surer:
            self._surer.at_loss(labels, exact)

    def at_gradients(self, labels: Inputs, exact: Taps) -> None:
        """Say that gradients are compared; exact: the reference's, of weights and taps."""
        self._gradients, self._found = (labels, exact), []
        if self._surer:
            self._surer.at_gradients(labels, exact)

    def surer(self) -> Rounding:
        """Return the same with more runs, which are begun when they are first asked for."""
        if self._surer is None:
            self._surer = Rounding(self._reference, self._inputs, self._dtype, _SURER)
            self._surer.at(self._now, self._exact, self._fed, self._positions)
            self._surer._loss, self._surer._gradients = self._loss, self._gradients
        return self._surer

    def allowed(self, error: str, tap: str) -> np.ndarray | None:
        """Return the largest error of every element of a tap that rounding accounts for; None for an unknown tap.

        error: as of a row. tap: of a gradient with "grad." before it.
        """
        key = ("local" if error == "local" else error if error in ("loss", "gradient") else "accumulated", tap)
        if key not in self._known:
            exact = self._exact_of(error, tap)
            if exact is None:
                return None
            found = self._runs_of(error, tap)
            if not found:
                return None
            self._known[key] = most(found, exact)
        return self._known[key]

    def _exact_of(self, error: str, tap: str) -> np.ndarray | None:
        if error == "loss":
            return np.array(self._loss[1]) if self._loss else None
        if error == "gradient":
            return self._gradients[1].get(tap.removeprefix("grad.")) if self._gradients else None
        if tap == self._config.family.hidden:
            return None if self._fed is None else self._fed[:, self._positions or slice(None)]
        return self._exact.get(tap)

    def _runs_of(self, error: str, tap: str) -> list[np.ndarray]:
        """What every run has for a tap; nothing for what is made of taps elsewhere, such as log-probabilities."""
        if error == "gradient" and self._gradients:
            if not self._found:
                self._reference.inexact("", 0).backward(self._inputs, self._gradients[0])  # finds the kinks
                every = [run.backward(self._inputs, self._gradients[0]) for run in self._runs]
                self._found = [run.weights | run.taps for run in every]
            name = tap.removeprefix("grad.")
            return [taps[name] for taps in self._found if name in taps]
        if error == "loss" and self._loss:
            pairs = zip(self._runs, self._stage("accumulated"), strict=True)
            return [np.array(run.loss(taps, self._loss[0])) for run, taps in pairs]
        return [taps[tap] for taps in self._stage("local" if error == "local" else "accumulated") if tap in taps]

    def _stage(self, error: str) -> list[dict[str, np.ndarray]]:
        """Every run's taps of the present stage, computed once."""
        if error not in self._ran:
            self._ran[error] = self._local() if error == "local" else self._accumulated()
        return self._ran[error]

    def _accumulated(self) -> list[dict[str, np.ndarray]]:
        """Every run's taps of the present stage, each from what it computed before."""
        for step in self._steps:
            if step == self._steps[-1]:
                return [self._finished(run, stream) for run, stream in zip(self._runs, self._streams, strict=True)]
            self._reach(step)
            if step == self._now:
                break
        return self._taps

    def _finished(self, run: Any, stream: Any) -> dict[str, np.ndarray]:
        hidden = run.hidden(stream)[:, self._positions or slice(None)]
        return {**run.finish(stream, self._positions), self._config.family.hidden: hidden}

    def _reach(self, step: Step) -> None:
        """Take all runs through a stage, unless they have been there."""
        index = self._steps.index(step)
        if index <= self._reached:
            return
        if index == 0:
            found = [run.start(self._inputs) for run in self._runs]
        else:
            found = [run.step(step, stream) for run, stream in zip(self._runs, self._streams, strict=True)]
        self._taps, self._streams, self._reached = [x[0] for x in found], [x[1] for x in found], index

    def _local(self) -> list[dict[str, np.ndarray]]:
        """Every run's taps of the present stage, each from what the exact one was given, rounded."""
        if not self._streams:
            self._reach(self._steps[0])
        found = []
        for run, stream in zip(self._runs, self._streams, strict=True):
            stream = run.inject(stream, self._fed)
            is_last = self._now == self._steps[-1]
            found.append(run.finish(stream, self._positions) if is_last else run.step(self._now, stream)[0])
        return found


def noise(runs: list[np.ndarray], exact: np.ndarray) -> np.ndarray:
    """Return the noise of every element: the root mean square of what it moves by, or its row's if that is larger."""
    total = np.asarray(sum(np.square(run - exact) for run in runs) / len(runs))
    found: np.ndarray = np.sqrt(np.maximum(total, _mean_of_rows(total)))
    return found


def most(runs: list[np.ndarray], exact: np.ndarray) -> np.ndarray:
    """Return the largest error that rounding accounts for: FACTOR times the noise, or FACTOR ** 2 where a row is lost.

    A row is lost where its noise is larger than itself. What is left in its place is a product of several errors (the
    gradient of a LayerNorm over two features is one), and a product spreads by as many more orders of magnitude.
    """
    total = np.asarray(sum(np.square(run - exact) for run in runs) / len(runs))
    lost = _mean_of_rows(total) > _mean_of_rows(np.square(exact))
    found: np.ndarray = noise(runs, exact) * np.where(lost, FACTOR**2, FACTOR)
    return found


def _mean_of_rows(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=-1, keepdims=True) if x.ndim else x
