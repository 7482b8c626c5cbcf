"""A witness on its own: all its stages one after the other.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.given.inputs import Inputs
from parity.witnesses.witness import Setting, Source, Taps, Witness, load_witness


class Whole(NamedTuple):
    """A whole run: the configuration it ran under, every tap, and the weights that came from the seed."""

    config: BigBirdConfig
    taps: Taps
    initialised: list[str]


def run_whole(witness: Witness, inputs: Inputs, fed: Sequence[np.ndarray] | None = None) -> Whole:
    """Run every stage of a witness that steps.

    fed: hidden states [B, L, D] to give to each stage but the first, in place of the witness's own.
    """
    first, stream = witness.start(inputs)
    taps, steps = dict(first), witness.config.family.steps(witness.config)
    for i, step in enumerate(steps[1:-1]):
        found, stream = witness.step(step, stream if fed is None else witness.inject(stream, fed[i]))
        taps |= found
    taps |= witness.finish(stream if fed is None else witness.inject(stream, fed[-1]))
    return Whole(witness.config, taps, witness.initialised)


def load_whole(
    name: str, folder: Path, head: str, inputs: Inputs, overrides: Mapping[str, Any], init_seed: int
) -> Whole:
    """Load a witness of a head from a model folder, float32 on the CPU, and run all its stages."""
    return run_whole(load_witness(name, Source(folder, head, overrides, init_seed), Setting()), inputs)
