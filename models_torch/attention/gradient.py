"""The gradient of block-sparse attention, which computes the probabilities again rather than keep them.

Legend: as in gathering.py; C some query blocks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models_torch.attention import batched, onednn, plain
from models_torch.attention.gathering import Listed, every_head, fold, in_blocks, join_heads, take, take_rows
from models_torch.attention.rows import Row

NONE = (None,) * 4  # the gradients of what is not differentiated


def _every_head(*arguments: Any) -> Tensor:
    run = batched.every_head if isinstance(arguments[-1], batched.Batch) else every_head
    return run(*arguments)


class BlockSparse(torch.autograd.Function):
    """every_head with a gradient that computes the probabilities again, so that nothing [queries, keys] is kept.

    Made of ordinary operations in both directions: second derivatives and torch.func go through it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        """See every_head of gathering.py and batched.py."""
        return _every_head(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what went in and what came out."""
        *tensors, ctx.row = inputs
        ctx.save_for_backward(*tensors, output)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_BLNH: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k and v."""
        if isinstance(ctx.row, batched.Batch):
            *given, context_BLNH = ctx.saved_tensors
            found: Any = batched.every_head_gradient
            return *found(*given, ctx.row, context_BLNH, grad_BLNH), *NONE
        q, k, v, mask_BL, blocks, counts, context_BLNH = ctx.saved_tensors
        grad_BNLH = (grad_BLNH * mask_BL[:, :, None, None]).to(q.dtype).transpose(1, 2)
        context_BNLH = context_BLNH.transpose(1, 2)
        gradients: list[list[list[Tensor]]] = [[], [], []]
        for b in range(len(q)):
            parts = []
            for h in ctx.row.heads(q.shape[1]):
                given = q[b, h], k[b, h], v[b, h], mask_BL[b], blocks[h], counts[h], ctx.row
                parts.append(_some_heads_gradient(*given, context_BNLH[b, h], grad_BNLH[b, h]))
            for batch, heads in zip(gradients, zip(*parts, strict=True), strict=True):
                batch.append(list(heads))
        return *(join_heads(x).transpose(1, 2) for x in gradients), *NONE

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the directional derivative, as the gradient of the gradient: forward mode does not nest."""
        qkv, others, row = ctx.saved_tensors[:3], ctx.saved_tensors[3:], ctx.row
        if isinstance(row, Row):
            row = replace(row, how=replace(row.how, fused=False))  # fused attention has no second derivative
        moved = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(qkv, tangents[:3], strict=True))
        vjp: Any = torch.func.vjp
        context, gradient = vjp(lambda q, k, v: _every_head(q, k, v, *others, row), *qkv)
        derivative: Tensor = vjp(gradient, torch.zeros_like(context))[1](moved)[0]
        return derivative


def _some_heads_gradient(
    q_MLH: Tensor,
    k_MLH: Tensor,
    v_MLH: Tensor,
    mask_L: Tensor,
    blocks_MQS: Tensor,
    counts_MQS: Tensor,
    row: Row,
    context_MLH: Tensor,
    grad_MLH: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of some heads' queries, keys and values, [M, L, H] each, from that of their context."""
    q_MLH, k_MLH, v_MLH, grad_MLH = (x.contiguous() for x in (q_MLH, k_MLH, v_MLH, grad_MLH))
    bias_L, W = plain.mask_bias(mask_L, q_MLH.dtype), row.block_size
    delta_ML1 = (grad_MLH * context_MLH).sum(-1, keepdim=True)
    edges = []
    for text in row.in_order():
        own = (take_rows(x, text.global_rows) for x in (q_MLH, grad_MLH, delta_ML1))
        q_MGH, grad_MGH, delta_MG1 = own
        keyed = k_MLH[:, text.rows], v_MLH[:, text.rows], bias_L[text.rows]
        edges.append(_attend_gradient(q_MGH, *keyed, grad_MGH, delta_MG1))
    dk_MLH, dv_MLH = (torch.cat(x, dim=1) for x in list(zip(*edges, strict=True))[1:])
    listed, dq = Listed(bias_L, blocks_MQS, counts_MQS, W), []
    for text, (dq_MGH, _, _) in zip(row.in_order(), edges, strict=True):
        dq.append(dq_MGH[:, :W])
        for rows, lists in text.chunks:
            blocks, bias_X1K = listed.chunk(lists)
            q_XWH, grad_XWH, delta_XW1 = (fold(x[:, rows], W) for x in (q_MLH, grad_MLH, delta_ML1))
            keyed = take(k_MLH, blocks, W), take(v_MLH, blocks, W), bias_X1K
            dq_XWH, dk_XKH, dv_XKH = _attend_gradient(q_XWH, *keyed, grad_XWH, delta_XW1)
            dq.append(dq_XWH.reshape(len(q_MLH), -1, q_MLH.shape[-1]))
            for x_MLH, dx_XKH in ((dk_MLH, dk_XKH), (dv_MLH, dv_XKH)):
                in_blocks(x_MLH, W).index_add_(0, blocks.flatten(), in_blocks(dx_XKH, W))
        dq.append(dq_MGH[:, W:])
    scale = 1 / math.sqrt(q_MLH.shape[-1])
    return torch.cat(dq, dim=1).mul_(scale), dk_MLH.mul_(scale), dv_MLH


def _attend_gradient(
    q_CLH: Tensor, k_CKH: Tensor, v_CKH: Tensor, bias: Tensor, grad_CLH: Tensor, delta_CL1: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attend's queries and keys, both yet to be scaled as the scores are, and of its values.

    delta: what all scores of a query have in common in the softmax's gradient, the sum of context x gradient.
    """
    if onednn.suits(q_CLH, k_CKH, bias):
        return onednn.attend_gradient(q_CLH, k_CKH, v_CKH, bias.expand(len(q_CLH), 1, -1), grad_CLH, delta_CL1)
    weights_CLK = plain.weights(q_CLH, k_CKH, bias)
    dv_CKH = weights_CLK.transpose(-1, -2) @ grad_CLH
    scores_CLK = torch.baddbmm(-delta_CL1, grad_CLH, v_CKH.transpose(-1, -2)).mul_(weights_CLK)
    return scores_CLK @ k_CKH, scores_CLK.transpose(-1, -2) @ q_CLH, dv_CKH
