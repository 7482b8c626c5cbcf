"""Faster linear layers for inference on a CPU. Flax has no counterpart: XLA chooses its own layouts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from models_torch.attention import onednn


@contextmanager
def fast_linears(model: nn.Module) -> Iterator[int]:
    """While it lasts, run the linear layers of ``model`` in oneDNN from weights that it laid out once; no gradients.

    Gives the number of layers. Float32 stays float32; sums are in another order, to 1e-6 of the largest value.
    Parameters and state_dict are as they were, and a second copy of the weights is held: do not change weights inside.
    Only torch.nn.Linear in float32 on the CPU is taken, and where gradients are switched on again the layer itself
    runs. Raises ValueError where torch was built without oneDNN, or nothing is to be taken.
    """
    if not onednn.available():
        raise ValueError("fast_linears needs a torch with oneDNN (mkldnn), which this one lacks: leave it out")
    linears = _usual_linears(model)
    if not linears:
        raise ValueError("fast_linears found no linear layer in float32 on the CPU: leave it out")
    with _laid_out(linears):
        yield len(linears)


def _usual_linears(model: nn.Module) -> list[nn.Linear]:
    """Linear layers in float32 on the CPU, but for those whose forward somebody has replaced already."""
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear and "forward" not in module.__dict__ and onednn.fits(module.weight)
    ]


@contextmanager
def _laid_out(linears: list[nn.Linear]) -> Iterator[None]:
    with torch.no_grad():
        try:
            for linear in linears:
                packed = onednn.pack(linear.weight.detach())
                linear.forward = functools.partial(_run, linear, packed)  # type: ignore[method-assign]
            yield
        finally:
            for linear in linears:
                linear.__dict__.pop("forward", None)


def _run(linear: nn.Linear, packed: Tensor, x: Tensor) -> Tensor:
    """The layer from its packed weight, where that computes the same."""
    if onednn.takes(x):
        return onednn.product(x, packed, linear.bias)
    return functional.linear(x, linear.weight, linear.bias)
