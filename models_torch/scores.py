"""Scores of every word, whose gradient passes by the tokens that have none.

Legend: R tokens of all texts, S those that are picked, D hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models_torch.few_rows import product, suits

_WORTH = 0.75  # above this share of tokens, to pick them takes as long as it saves


def word_scores(x_BLD: Tensor, words_VD: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """Return x words^T + bias, [..., V].

    A loss of masked words has no gradient at six tokens of seven. On a CPU the two products of the gradient then take
    these tokens alone, which is exact: the others' rows are 0. A compiler, torch.func and autocast have their own way.
    """
    if suits(x_BLD):
        return product(x_BLD, words_VD, bias_V)
    whole = type(x_BLD) is Tensor and type(words_VD) in (Tensor, nn.Parameter)  # no part of either is elsewhere
    picked = whole and torch.is_grad_enabled() and x_BLD.device.type == "cpu" and x_BLD.dtype == words_VD.dtype
    traced = (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )
    if not picked or traced or torch.is_autocast_enabled("cpu"):
        return functional.linear(x_BLD, words_VD, bias_V)
    found: Tensor = _WordScores.apply(x_BLD.flatten(0, -2), words_VD, bias_V)
    return found.unflatten(0, x_BLD.shape[:-1])


class _WordScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RD: Tensor, words_VD: Tensor, bias_V: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_RD, words_VD)
        return functional.linear(x_RD, words_VD, bias_V)

    @staticmethod
    def backward(ctx: Any, grad_RV: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The usual gradients, of the rows that are not 0; made of operations that have gradients themselves."""
        x_RD, words_VD = ctx.saved_tensors
        rows = grad_RV.any(dim=1).nonzero()[:, 0]
        some = len(rows) <= _WORTH * len(grad_RV)
        grad_SV, x_SD = (grad_RV[rows], x_RD[rows]) if some else (grad_RV, x_RD)
        of_x, of_words, of_bias = ctx.needs_input_grad
        dx = grad_SV @ words_VD if of_x else None
        if dx is not None and some:
            dx = torch.zeros_like(x_RD).index_copy(0, rows, dx)
        return dx, grad_SV.t() @ x_SD if of_words else None, grad_SV.sum(dim=0) if of_bias else None
