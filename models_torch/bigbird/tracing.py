"""What tracing does to sizes. Flax has no counterpart: jax.jit leaves shapes as numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def is_traced() -> bool:
    """Whether torch.jit.trace is at work, to which values are unknown and sizes are tensors."""
    return torch.jit.is_tracing()  # type: ignore[attr-defined]


def lengths(x_BL: Tensor) -> tuple[int, int]:
    """Return the first two axes; the length as a number while tracing too, because the pattern is made for one."""
    L = x_BL.shape[1]
    return x_BL.shape[0], int(L) if is_traced() else L
