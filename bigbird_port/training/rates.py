"""The original's two schedules, in float64: the rate of an update from the number of those before it.

Sources: bigbird/core/optimization.py of google-research/bigbird (get_linear_warmup_linear_decay_lr,
get_linear_warmup_rsqrt_decay_lr).
"""

from __future__ import annotations


def linear_rate(step: int, peak: float, warmup: int, total: int) -> float:
    """Return the rate of a linear warmup, then a linear decay that counts from step 0 and not from the warmup's end."""
    if step < warmup:
        return peak * step / warmup
    return peak * (1 - min(step, total) / total)


def rsqrt_rate(step: int, peak: float, warmup: int, hidden_size: int) -> float:
    """Return the rate of a linear warmup, then one over the root of the step."""
    rise = min(1.0, step / warmup) if warmup else 1.0
    return peak * hidden_size**-0.5 * rise * max(step, warmup, 1) ** -0.5
