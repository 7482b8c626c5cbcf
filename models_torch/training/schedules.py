"""The original's schedules of the rate: linear in pretraining and classification, rsqrt in summarisation."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bigbird_port.training.rates import linear_rate, rsqrt_rate


def linear_schedule(optimizer: Optimizer, peak: float, warmup: int, total: int, step: int = 0) -> LambdaLR:
    """Return the schedule of linear_rate, whose next update is that with ``step`` updates before it."""
    _begin(optimizer, peak)
    return LambdaLR(optimizer, lambda count: linear_rate(count, 1.0, warmup, total), last_epoch=step - 1)


def rsqrt_schedule(optimizer: Optimizer, peak: float, warmup: int, hidden_size: int, step: int = 0) -> LambdaLR:
    """Return the schedule of rsqrt_rate, whose next update is that with ``step`` updates before it."""
    _begin(optimizer, peak)
    return LambdaLR(optimizer, lambda count: rsqrt_rate(count, 1.0, warmup, hidden_size), last_epoch=step - 1)


def _begin(optimizer: Optimizer, peak: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = peak
