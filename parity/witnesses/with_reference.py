"""The float64 reference as a witness.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Step
from bigbird_port.models.folder import read_folder_config
from bigbird_port.schema.weights import digest
from parity.given.adversarial import large_norm
from parity.given.inputs import Inputs
from parity.reference import backward
from parity.reference import model as models
from parity.reference.backward import Gradients
from parity.reference.model import Reference, framework_of
from parity.reference.own import own_module
from parity.reference.rounding import Arithmetic, arithmetic, lossy
from parity.reference.weights import Widened
from parity.witnesses.witness import Setting, Source, Taps
from parity.witnesses.written import Written


class ReferenceWitness:
    """A Reference; its dtype is float64, its device the CPU, whatever the frameworks run on."""

    name, complete, steps, multiple = "reference", True, True, 1

    def __init__(self, model: Reference) -> None:
        self.model, self.config, self.initialised = model, model.config, model.initialised
        self._kinks: dict[str, np.ndarray] = {}

    def digests(self) -> dict[str, str]:
        """Return sha256 of every weight in the type that it came in."""
        return {name: digest(x) for name, x in self.model.weights.given.items()}

    def scale_words(self, factor: float) -> None:
        """Scale the matrix, and hold it; the others stay where they are."""
        self.model = replace(
            self.model, weights=Widened(large_norm(self.model.weights.given, factor, self.config.family))
        )

    def start(self, inputs: Inputs) -> tuple[Taps, Any]:
        """Run the embeddings."""
        return self.model.start(inputs)

    def step(self, step: Step, stream: Any) -> tuple[Taps, Any]:
        """Run a layer."""
        return self.model.step(step, stream)

    def finish(self, stream: Any, positions: slice | None = None) -> Taps:
        """Run the head."""
        return self.model.finish(stream if positions is None else replace(stream, x=stream.x[:, positions]))

    def inject(self, stream: Any, x: np.ndarray) -> Any:
        """Put hidden states in."""
        return self.model.inject(stream, x)

    def hidden(self, stream: Any) -> np.ndarray:
        """Return the hidden states."""
        return self.model.hidden(stream)

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Return the loss by its definition."""
        return self.model.losses(scores, labels)

    def backward(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Return the gradients of the loss, written by hand."""
        return own_module(backward, self.config.family).backward(self.model, inputs, labels)

    def write(self, inputs: Inputs, T: int, beams: int, alpha: float) -> Written:
        """Return what is written: greedily with one beam, else by the original's search."""
        found: Written = self.model.write(inputs, T, beams, alpha)  # type: ignore[attr-defined]  # of heads that write
        return found

    def inexact(self, dtype: str, seed: int) -> Inexact:
        """Return this model in the arithmetic of a dtype (empty: exact); all of one model know the same kinks."""
        return Inexact(self, Arithmetic(dtype, np.random.default_rng(seed), self._kinks))


class Inexact:
    """A reference witness in an arithmetic that rounds: what rounding does to it stands for what it does to all."""

    def __init__(self, witness: ReferenceWitness, one: Arithmetic) -> None:
        self._witness, self._arithmetic = witness, one

    def start(self, inputs: Inputs) -> tuple[Taps, Any]:
        """Run the embeddings."""
        with arithmetic(self._arithmetic):
            return self._witness.start(inputs)

    def step(self, step: Step, stream: Any) -> tuple[Taps, Any]:
        """Run a layer."""
        with arithmetic(self._arithmetic):
            return self._witness.step(step, stream)

    def finish(self, stream: Any, positions: slice | None = None) -> Taps:
        """Run the head."""
        with arithmetic(self._arithmetic):
            return self._witness.finish(stream, positions)

    def inject(self, stream: Any, x: np.ndarray) -> Any:
        """Put hidden states in, rounded."""
        with arithmetic(self._arithmetic):
            return self._witness.inject(stream, lossy(x.astype(np.float64, copy=False)))

    def hidden(self, stream: Any) -> np.ndarray:
        """Return the hidden states."""
        return self._witness.hidden(stream)

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Return the loss."""
        with arithmetic(self._arithmetic):
            return self._witness.loss(scores, labels)

    def backward(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Return the gradients; exact arithmetic notes where the kinks are, and the others read that."""
        with arithmetic(self._arithmetic):
            return self._witness.backward(inputs, labels)


def load(source: Source, setting: Setting) -> ReferenceWitness:
    """Load the reference of a head; raises ValueError naming the file and what is wrong with it."""
    family = read_folder_config(source.folder, framework_of(source.folder)).family
    cls = own_module(models, family).Reference
    return ReferenceWitness(cls.load(source.folder, source.head, source.overrides, source.init_seed))


def make(config: BigBirdConfig, head: str, weights: Mapping[str, np.ndarray], setting: Setting) -> ReferenceWitness:
    """Build the reference of a head from canonical weights."""
    return ReferenceWitness(own_module(models, config.family).Reference.of(config, head, weights))
