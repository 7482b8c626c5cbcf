"""A golden case as a witness: it replays what the original code computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Step
from parity.given.golden import GoldenCase, excuse, reports, tap_name, tensors_as_taps
from parity.given.inputs import Inputs
from parity.witnesses.witness import Taps
from parity.witnesses.written import Written


class GoldenWitness:
    """The tensors of a case under their taps' names. It has some of the taps, and runs no layer on another input.

    not_compared: golden tensors that a run of this head rightly has no tap for.
    """

    name, complete, steps, multiple = "golden", False, False, 1

    def __init__(self, case: GoldenCase, head: str, config: BigBirdConfig) -> None:
        self.config, self.initialised, self._case = config, list[str](), case
        self.not_compared = sorted(name for name in case.tensors if excuse(name, head, config))
        excused = {tap_name(name, config.family) for name in self.not_compared}
        self._taps = {name: tap for name, tap in tensors_as_taps(case).items() if name not in excused}
        self._steps = config.family.steps(config)

    def digests(self) -> dict[str, str]:
        """Return nothing: a case holds no weights."""
        return {}

    def scale_words(self, factor: float) -> None:
        """Raise, because a file holds results and cannot compute others."""
        raise NotImplementedError("a golden case has no weights")

    def start(self, inputs: Inputs) -> tuple[Taps, None]:
        """Return the taps of the first stage."""
        return self._of(self._steps[0]), None

    def step(self, step: Step, stream: None) -> tuple[Taps, None]:
        """Return the taps of a stage, and what the original reports beside them, such as random blocks."""
        return self._of(step), None

    def finish(self, stream: None, positions: slice | None = None) -> Taps:
        """Return everything after the layers."""
        return self._of(self._steps[-1])

    def inject(self, stream: None, x: np.ndarray) -> Any:
        """Raise, because a file holds results and cannot compute others."""
        raise NotImplementedError("a golden case runs no layer")

    def hidden(self, stream: None) -> np.ndarray:
        """Raise, because a file holds results and cannot compute others."""
        raise NotImplementedError("a golden case runs no layer")

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Raise, because a file holds results and cannot compute others."""
        raise NotImplementedError("a golden case computes no loss")

    def write(self, inputs: Inputs, T: int, beams: int, alpha: float) -> Written:
        """Return what the original wrote."""
        if beams == 1:
            return Written(self._case.tensors["greedy.ids"])
        name = f"beam{beams}_alpha{alpha}"
        return Written(self._case.tensors[f"{name}.beams"], self._case.tensors[f"{name}.scores"])

    def _of(self, step: Step) -> Taps:
        return {name: x for name, x in self._taps.items() if self._step_of(name) == step}

    def _step_of(self, name: str) -> Step:
        """The stage that a tap is of; the last one, unless another has it or its number."""
        place, last = self.config.family.place(name), self._steps[-1]
        if place is None:
            return last
        known = (step for step in self._steps if step.number == place.layer)
        return next((step for step in known if place.tap in step.stage.taps or reports(step, place.tap)), last)
