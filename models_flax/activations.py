"""The activations that a configuration can name."""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import linen as nn
from jax import numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": lambda x: nn.gelu(x, approximate=True),
    "relu": nn.relu,
    "selu": nn.selu,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}
