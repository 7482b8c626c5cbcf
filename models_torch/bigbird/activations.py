"""The activations that a configuration can name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def gelu_new(x: Tensor) -> Tensor:
    """Return the tanh approximation of gelu, which the original calls gelu."""
    return functional.gelu(x, approximate="tanh")


def linear(x: Tensor) -> Tensor:
    """Return x."""
    return x


# functions with names, because a model that holds a lambda cannot be pickled
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": gelu_new,
    "relu": functional.relu,
    "selu": functional.selu,
    "tanh": torch.tanh,
    "linear": linear,
}
