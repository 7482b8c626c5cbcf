"""Run one head of one framework on given inputs and return its taps as NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from parity.given.inputs import Inputs

_NO_TAPS = ("last_hidden_state", "hidden_states", "taps")  # what the layers' taps hold already


@dataclass(frozen=True)
class Run:
    """One framework's run: the configuration it ran under, its taps, and the weights it had to initialise."""

    config: BigBirdConfig
    taps: dict[str, np.ndarray]
    initialised: list[str]


Runner = Callable[[Path, str, Inputs, Mapping[str, Any], int], Run]


def run_torch(folder: Path, head: str, inputs: Inputs, overrides: Mapping[str, Any], init_seed: int) -> Run:
    """Run the torch model of ``head`` from ``folder`` on the CPU in float32, full matmul precision."""
    import torch

    import models_torch

    torch.set_float32_matmul_precision("highest")
    model = getattr(models_torch, HEADS[head].class_name).from_pretrained(folder, init_seed=init_seed, **overrides)
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(x) for name, x in inputs.items()}, output_taps=True)
    return Run(model.config, _collect(output), model.initialised)


def run_flax(folder: Path, head: str, inputs: Inputs, overrides: Mapping[str, Any], init_seed: int) -> Run:
    """Run the Flax model of ``head`` from ``folder`` on the CPU in float32, full matmul precision."""
    import jax

    import models_flax

    model = getattr(models_flax, HEADS[head].flax_class_name).from_pretrained(folder, init_seed=init_seed, **overrides)
    forward = jax.jit(lambda params, arrays: model(**arrays, params=params, output_taps=True))
    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        output = forward(model.params, inputs)
    return Run(model.config, _collect(output), model.initialised)


RUNNERS: dict[str, Runner] = {"torch": run_torch, "flax": run_flax}


def _collect(output: Any) -> dict[str, np.ndarray]:
    """The model's taps, and its scores under their field names."""
    scores = {field.name: getattr(output, field.name) for field in fields(output) if field.name not in _NO_TAPS}
    return {name: np.asarray(tap) for name, tap in (output.taps | scores).items() if tap is not None}
