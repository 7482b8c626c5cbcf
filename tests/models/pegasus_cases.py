"""The golden cases of BigBird-Pegasus."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from bigbird_port.schema.layout import change_layout
from bigbird_port.schema.table import dims, weights_of
from tests.conftest import GOLDEN

NAMES = ("mini-pegasus", "tiny-pegasus", "tiny-coupled")
CASES = [
    pytest.param(name, case, id=f"{name}-{case.stem}")
    for name in NAMES
    for case in (GOLDEN[name].cases or [Path("absent")])
]
WITH_GRADIENTS = [case for case in CASES if "grads" in case.id]
CLOSE = 1e-5  # what golden files ask for; float32 programs differ by 2e-6


class Case:
    """One golden case: its tensors, and the length whose pattern it has."""

    def __init__(self, path):
        self.tensors = safetensors.numpy.load_file(path)
        with safe_open(path, "np") as file:
            self.length = int(file.metadata()["max_encoder_length"])
        self.ids, self.targets = (self.tensors[name].astype(np.int64) for name in ("input_ids", "target_ids"))
        self.real = self.ids != 0

    def encoder(self, name):
        """A tensor of the encoder at real positions."""
        return self.tensors[name][:, : self.ids.shape[1]][self.real]

    def largest_gradient(self):
        return max(np.abs(value).max() for name, value in self.tensors.items() if name.startswith("grad."))

    def gradients(self, config, framework):
        """Golden gradients under a framework's names, in its layout."""
        scope = config.family.scope(config)
        for row in weights_of(config, "conditional-generation", framework):
            golden = self.tensors[f"grad.{row.original[0].replace('{scope}', scope)}"]
            name, axes = (row.torch, row.torch_axes) if framework == "torch" else (row.flax, row.flax_axes)
            yield name, change_layout(golden, row.axes, axes, dims(config))


def error(found, expected):
    return float(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max())
