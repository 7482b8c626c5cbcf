"""The backward kernel of block-sparse attention for TPUs (Pallas): the weights of each list are computed again.

Keys stand in rows here and queries in lanes, so that the weights need not be transposed to give the gradients of keys
and values. Those of a group of heads stay in VMEM over all its lists. A list adds to the blocks that it names.

Legend: as in kernel_forward.py.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import Array, lax
from jax import numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from models_flax.attention.kernel_layout import (
    NN,
    NT,
    ROOM,
    TN,
    Ref,
    Sizes,
    Tables,
    as_row,
    by_head,
    call,
    held,
    is_real,
    on_each_block,
    own_lanes,
    parts,
    picked,
    positions,
    scaled,
)


def backward(inputs: tuple[Array, ...], log_BUPR: Array, tables: Tables, sizes: Sizes) -> list[Array]:
    """Return the gradients of queries, keys and values, [B, L, N H].

    inputs: queries, keys, values, the context and its gradient, [B, L, N H]. log_BUPR: the forward kernel's.
    """
    like = inputs[0]
    B, L, width = like.shape
    once = None if held(L, sizes.lanes, like.dtype, times=2) <= ROOM else pl.Buffered(1)
    whole = pl.BlockSpec((1, L, sizes.lanes), lambda b, u, t, *_: (b, 0, u), pipeline_mode=once)
    of_queries = pl.BlockSpec((1, 1, *log_BUPR.shape[2:]), lambda b, u, t, *_: (b, u, 0, 0))
    in_place = like.dtype == jnp.float32
    return call(
        functools.partial(_kernel, sizes=sizes, in_place=in_place),
        tables,
        sizes,
        name="bigbird_backward",
        grid=(B, width // sizes.lanes),
        inputs=[*((x, whole) for x in inputs), (log_BUPR, of_queries)],
        outputs=[(jax.ShapeDtypeStruct(like.shape, like.dtype), whole)] * 3,
        scratch=[
            pltpu.VMEM((sizes.block, sizes.lanes), jnp.float32),
            pltpu.VMEM((1, L, sizes.lanes), like.dtype),
            *([] if in_place else [pltpu.VMEM((1, L, sizes.lanes), jnp.float32)] * 2),
        ],
        products=5,
    )


def _kernel(
    rows: Ref,
    goes_on: Ref,
    blocks: Ref,
    extra: Ref,
    masks: Ref,
    q: Ref,
    k: Ref,
    v: Ref,
    context: Ref,
    grad: Ref,
    log: Ref,
    dq: Ref,
    dk: Ref,
    dv: Ref,
    dq_before: Ref,
    real_k: Ref,
    *sums: Ref,
    sizes: Sizes,
    in_place: bool,
) -> None:
    """in_place: whether keys and values get their gradients in the type in which these are added up."""
    dk_sum, dv_sum = (dk, dv) if in_place else sums
    product = functools.partial(lax.dot_general, preferred_element_type=jnp.float32, precision=sizes.precision)

    @on_each_block(0, masks, sizes)
    def _(at: Any, real_W1: Array) -> None:
        for x in (dq, dk_sum, dv_sum):
            x[0, at, :] = jnp.zeros((sizes.block, sizes.lanes), x.dtype)
        real_k[0, at, :] = jnp.where(real_W1, k[0, at, :], jnp.zeros((), k.dtype))

    for g in range(sizes.at_once):
        t = pl.program_id(2) * sizes.at_once + g
        at, one_row = positions(rows[t], sizes), pl.ds(rows[t], 1)
        q_RD = own_lanes(scaled(q[0, at, :], sizes), sizes)
        grad_WD = jnp.where(is_real(masks, rows[t]), grad[0, at, :], jnp.zeros((), grad.dtype))
        delta_WD = grad_WD.astype(jnp.float32) * context[0, at, :].astype(jnp.float32)
        delta_1R = as_row(own_lanes(delta_WD, sizes).sum(axis=1, keepdims=True))
        grad_RD = own_lanes(grad_WD, sizes)
        k_KD, v_KD = picked(real_k, blocks, t, sizes), picked(v, blocks, t, sizes)
        scores_KR = product(k_KD, q_RD, NT) + _shift(log[0, 0, one_row, :], extra, t, sizes)
        # No weight is over 1, except of padding, whose keys are 0 and whose gradients are not kept.
        weights_KR = jnp.exp(jnp.minimum(scores_KR, 0))
        dscores_KR = weights_KR * (product(v_KD, grad_RD, NT) - delta_1R)
        weights_KR, dscores_KR = weights_KR.astype(q.dtype), dscores_KR.astype(q.dtype)
        _add(dk_sum, product(dscores_KR, q_RD, NN), blocks, t, sizes)
        _add(dv_sum, product(weights_KR, grad_RD, NN), blocks, t, sizes)
        before_WD = jnp.where(goes_on[t] == 0, 0, dq_before[...])
        dq_WD = before_WD + by_head(product(dscores_KR, k_KD, TN), sizes) * sizes.scale
        dq_before[...] = dq_WD
        dq[0, at, :] = dq_WD.astype(dq.dtype)

    @on_each_block(pl.num_programs(2) - 1, masks, sizes)
    def _(at: Any, real_W1: Array) -> None:
        for x, x_sum in ((dk, dk_sum), (dv, dv_sum)):
            x[0, at, :] = jnp.where(real_W1, x_sum[0, at, :], 0).astype(x.dtype)


def _shift(log_1R: Array, extra: Ref, t: Any, sizes: Sizes) -> Array:
    """What is added to the scores, [K, R]: the log of how often a block counts, less that of the sum of weights."""
    slots = []
    for s in range(sizes.slots):
        of_heads = [jnp.full((1, sizes.block), extra[0, 0, sizes.slot(t, a, s)]) for a in range(sizes.heads)]
        row_1R = jnp.concatenate(of_heads, axis=1) - log_1R
        slots.append(jnp.broadcast_to(row_1R, (sizes.block, sizes.rows)))
    return jnp.concatenate(slots)


def _add(sums: Ref, x_KD: Array, blocks: Ref, t: Any, sizes: Sizes) -> None:
    """Add to each head's key blocks what its lanes of the slots hold."""
    for s in range(sizes.slots):
        x_WD = x_KD[s * sizes.block : (s + 1) * sizes.block]
        for a, part_WD in enumerate(parts(x_WD, sizes)):
            sums[0, positions(blocks[0, 0, sizes.slot(t, a, s)], sizes), :] += part_WD
