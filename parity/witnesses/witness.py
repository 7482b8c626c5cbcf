"""Witnesses: whoever can say, layer by layer, what the model computes.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Step
from parity.given.inputs import Inputs
from parity.witnesses.devices import kind_of_device

Taps = dict[str, np.ndarray]
Dtype = Literal["float32", "bfloat16", "float16", "float64"]


@dataclass(frozen=True)
class Setting:
    """How a framework is run. device: a name of parity/witnesses/devices.py, such as "cpu" or "cuda:1".

    mesh: (name, size) of each axis of a mesh of such devices, for the witness "sharded".
    """

    dtype: Dtype = "float32"
    device: str = "cpu"
    mesh: tuple[tuple[str, int], ...] = ()

    @property
    def kind(self) -> str:
        """The kind of the device: "cuda" of "cuda:1"."""
        return kind_of_device(self.device)


@dataclass(frozen=True)
class Source:
    """What a witness is loaded from. init_seed: for head weights that the folder lacks."""

    folder: Path
    head: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    init_seed: int = 0


@dataclass(frozen=True, eq=False)
class Gradients:
    """A loss, and its gradients by canonical name of the weight, in canonical layout, and by tap."""

    loss: float
    weights: Taps
    taps: Taps


class Witness(Protocol):
    """A model of one head that runs stage by stage, as its family lists them: start, a step for each, finish.

    name: of the witness. complete: it has every tap, so that what it lacks is an error; else only what it has is
    compared. steps: a stage can be run on any input (``inject``). multiple: a run's number of texts must be a multiple
    of it. initialised: canonical names of weights that came from the seed.
    """

    name: str
    complete: bool
    steps: bool
    multiple: int
    config: BigBirdConfig
    initialised: list[str]

    def digests(self) -> dict[str, str]:
        """Return sha256 of every loaded weight by canonical name, in canonical layout; empty if it holds none."""
        ...

    def scale_words(self, factor: float) -> None:
        """Make the word embeddings ``factor`` times as large, a power of two; ``digests`` is of no use afterwards."""
        ...

    def start(self, inputs: Inputs) -> tuple[Taps, Any]:
        """Return the taps of the first stage, and what the next one needs."""
        ...

    def step(self, step: Step, stream: Any) -> tuple[Taps, Any]:
        """Return the taps of a stage by their full names, and what the next stage needs."""
        ...

    def finish(self, stream: Any, positions: slice | None = None) -> Taps:
        """Return the head's scores and the taps before them; of some positions only, for heads that score each."""
        ...

    def inject(self, stream: Any, x: np.ndarray) -> Any:
        """Return ``stream`` with hidden states x [B, L, D] in it, rounded to the witness's dtype."""
        ...

    def hidden(self, stream: Any) -> np.ndarray:
        """Return the hidden states [B, L, D] in ``stream``; inject takes them without loss."""
        ...

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Return the loss of finish's scores, as the witness computes it."""
        ...


class Framework(Witness, Protocol):
    """A witness that has users, who call the model whole."""

    def call(self, inputs: Inputs) -> Taps:
        """Return what one call of the model returns, by field."""
        ...

    def call_base(self, inputs: Inputs) -> Any:
        """Return what ``finish`` takes, from one call of the base model."""
        ...

    def backward(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Return the loss and its gradients."""
        ...

    def decode(self, inputs: Inputs) -> np.ndarray:
        """Return the scores [B, L, V] of one token after the other, each given the cache of those before.

        The tokens are the decoder's, where the inputs have some, or else the texts'.
        """
        ...


# In order of trust. Every other is measured against the truths that are there.
MODULES = {
    "golden": "parity.witnesses.with_golden",
    "reference": "parity.witnesses.with_reference",
    "torch": "parity.witnesses.with_torch",
    "flax": "parity.witnesses.with_flax",
    "sharded": "parity.witnesses.with_mesh",
    "transformers": "parity.witnesses.with_transformers",
    "onnx": "parity.exports.with_onnx",
    "exported": "parity.exports.with_exported",
}
TRUTHS = ("golden", "reference")
FRAMEWORKS = ("torch", "flax", "sharded")
EXPORTED = ("onnx", "exported")  # programs, which are run as a whole and have what a call returns
_DIRECT = (("flax", "torch"), ("sharded", "flax"))  # twins; one device and many


def load_witness(name: str, source: Source, setting: Setting) -> Witness:
    """Load a witness by name; raises ValueError for bad files, and for a dtype or device that it does not have."""
    module: Any = importlib.import_module(MODULES[name])
    witness: Witness = module.load(source, setting)
    return witness


def make_witness(
    name: str, config: BigBirdConfig, head: str, weights: Mapping[str, np.ndarray], setting: Setting | None = None
) -> Any:
    """Build a witness from canonical weights; setting: None is float32 on the CPU.

    Raises ValueError for a dtype or device that it does not have.
    """
    module: Any = importlib.import_module(MODULES[name])
    return module.make(config, head, weights, setting or Setting())


def pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (value, reference) of every comparison among witnesses.

    Each against every truth that is more trusted; Flax against torch as well, and sharded Flax against Flax; without a
    truth, all against the first.
    """
    order = [name for name in MODULES if name in names]
    truths = [name for name in TRUTHS if name in order] or order[:1]
    found = [(name, truth) for truth in truths for name in order[order.index(truth) + 1 :]]
    return found + [direct for direct in _DIRECT if set(direct) <= set(names) and direct not in found]
