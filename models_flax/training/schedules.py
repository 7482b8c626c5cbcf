"""The original's schedules of the rate: linear in pretraining and classification, rsqrt in summarisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import numpy as jnp


def linear_schedule(peak: float, warmup: int, total: int) -> Callable[[Any], Any]:
    """Return a function of the updates so far: bigbird_port.training.rates.linear_rate, traceable."""

    def rate(step: Any) -> Any:
        rising = peak * step / max(warmup, 1)
        return jnp.where(step < warmup, rising, peak * (1 - jnp.minimum(step, total) / total))

    return rate


def rsqrt_schedule(peak: float, warmup: int, hidden_size: int) -> Callable[[Any], Any]:
    """Return a function of the updates so far: bigbird_port.training.rates.rsqrt_rate, traceable."""

    def rate(step: Any) -> Any:
        rise = jnp.minimum(1.0, step / warmup) if warmup else 1.0
        return peak * hidden_size**-0.5 * rise * jnp.maximum(step, max(warmup, 1)) ** -0.5

    return rate
