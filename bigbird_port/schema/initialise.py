"""Initial values for weights that a checkpoint lacks: the same in both frameworks, from a seed and a name."""

from __future__ import annotations

import hashlib

import numpy as np

from bigbird_port.families.configuration import Configuration
from bigbird_port.schema.table import Weight


def initial_value(weight: Weight, config: Configuration, seed: int) -> np.ndarray:
    """Return float32 initial values in canonical layout.

    "normal" is a normal distribution of standard deviation config.initializer_range cut at two of them, as in
    the original (bigbird/core/utils.py, create_initializer); drawn from ``seed`` and the canonical name, so that
    neither the framework nor the order matters.
    """
    shape = weight.shape(config)
    if weight.init != "normal":
        return np.full(shape, 1 if weight.init == "ones" else 0, np.float32)
    name = int.from_bytes(hashlib.sha256(weight.name.encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.PCG64([seed, name]))
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return (values * config.initializer_range).astype(np.float32)
