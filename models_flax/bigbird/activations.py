"""The activations that a configuration can name."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from flax import linen as nn
from jax import numpy as jnp


def gelu_new(x: jax.Array) -> jax.Array:
    """Return the tanh approximation of gelu, which the original calls gelu."""
    return nn.gelu(x, approximate=True)


def linear(x: jax.Array) -> jax.Array:
    """Return x."""
    return x


# functions with names, because a model that holds a lambda cannot be pickled
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_new": gelu_new,
    "relu": nn.relu,
    "selu": nn.selu,
    "tanh": jnp.tanh,
    "linear": linear,
}
