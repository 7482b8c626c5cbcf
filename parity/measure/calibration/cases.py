"""What calibration runs on: sizes, weights, inputs and labels, all from seeds.

Legend: B batch, L length.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import weights_of
from parity.given.inputs import Inputs, for_head, make_inputs
from parity.measure.losses import make_labels


@dataclass(frozen=True)
class Size:
    """One size of model and input, for one head.

    sparse: "original" for its random blocks (longer than 512 tokens), "transformers" for those of transformers, which
    exist for shorter texts, None for full attention. gradients: whether to run backwards, too. most_seeds: how
    many of the seeds to run, as large sizes take long (each has more elements instead).
    """

    head: str
    layers: int
    hidden: int
    heads: int
    length: int
    block: int = 16
    sparse: str | None = None
    batch: int = 2
    gradients: bool = True
    most_seeds: int = 4

    def config(self) -> Any:
        """Return the configuration; weights are of such a size that activations are about 1, as in a trained model."""
        raise NotImplementedError("a family's sizes make its configurations")

    def labels(self, config: Any, inputs: Inputs, seed: int, rng: np.random.Generator) -> Inputs:
        """Return labels for the head's loss."""
        return make_labels(config, self.head, inputs, seed)


def sizes_of(family: Family | None = None) -> dict[str, Size]:
    """Return the sizes of a family (None: of the default one) by name."""
    module: Any = importlib.import_module(f"parity.measure.calibration.{(family or default_family()).name}")
    sizes: dict[str, Size] = module.SIZES
    return sizes


@dataclass(frozen=True)
class Case:
    """A size with everything drawn from one seed: canonical float32 weights, inputs, and labels."""

    name: str
    size: Size
    seed: int
    config: BigBirdConfig
    weights: dict[str, np.ndarray]
    inputs: Inputs
    labels: Inputs

    @property
    def where(self) -> str:
        """The case, for people."""
        return f"{self.name}, seed {self.seed}"


def make_case(name: str, seed: int, size: Size | None = None) -> Case:
    """Draw everything of one case; size: None is the one of that name."""
    size = size or sizes_of()[name]
    config = size.config()
    rows = {row.name: row for side in ("torch", "flax") for row in weights_of(config, size.head, side)}
    rng = np.random.default_rng([seed, *name.encode()])
    weights = {}
    for row in rows.values():
        value = initial_value(row, config, seed)
        if row.init != "normal":  # all ones or zeros would leave a part of the arithmetic out
            value = value + rng.normal(0, 0.1, value.shape).astype(np.float32)
        weights[row.name] = value
    inputs = for_head(make_inputs(config, size.batch, size.length, seed), size.head, config)
    return Case(name, size, seed, config, weights, inputs, size.labels(config, inputs, seed, rng))
