"""The forward kernel of block-sparse attention for TPUs (Pallas): one softmax over the keys of each list.

One step of the grid takes some lists of one group of heads, whose queries, keys and values lie in VMEM. The heads of a
group share the lanes, so no head is transposed or padded: the queries of each head stand in rows of their own with
zeros in the lanes of the others, and each block of keys holds in the lanes of a head what this head's list names.

The lists of a global query block follow each other. Each goes on with the maximum, sum and context of the one before.

Legend: B batch, U groups of heads, A heads in a group, D lanes of a group (A heads of equal width), P blocks in a row
of texts, W block size, S slots in a list, K = S W keys of a list, T lists, R = A W rows of a list's queries.
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
    LANES,
    NEVER,
    NN,
    NT,
    Ref,
    Sizes,
    Tables,
    as_row,
    by_head,
    call,
    is_real,
    on_each_block,
    own_lanes,
    picked,
    positions,
    scaled,
    wide,
)


def forward(inputs: tuple[Array, ...], tables: Tables, sizes: Sizes) -> list[Array]:
    """Return the context [B, L, N H] and the log of each query's sum of weights [B, U, P, R].

    inputs: queries, keys and values, [B, L, N H].
    """
    like = inputs[0]
    B, L, width = like.shape
    groups, P = width // sizes.lanes, L // sizes.block
    whole = pl.BlockSpec((1, L, sizes.lanes), lambda b, u, t, *_: (b, 0, u))
    return call(
        functools.partial(_kernel, sizes=sizes),
        tables,
        sizes,
        name="bigbird_forward",
        grid=(B, groups),
        inputs=[(x, whole) for x in inputs],
        outputs=[
            (jax.ShapeDtypeStruct(like.shape, like.dtype), whole),
            (
                jax.ShapeDtypeStruct((B, groups, P, sizes.rows), jnp.float32),
                pl.BlockSpec((1, 1, P, sizes.rows), lambda b, u, t, *_: (b, u, 0, 0)),
            ),
        ],
        scratch=[
            pltpu.VMEM((sizes.rows, LANES), jnp.float32),
            pltpu.VMEM((sizes.rows, LANES), jnp.float32),
            pltpu.VMEM((sizes.rows, sizes.lanes), jnp.float32),
        ],
        products=2,
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
    log: Ref,
    largest_before: Ref,
    sum_before: Ref,
    values_before: Ref,
    *,
    sizes: Sizes,
) -> None:
    product = functools.partial(lax.dot_general, preferred_element_type=jnp.float32, precision=sizes.precision)

    @on_each_block(0, masks, sizes)
    def _(at: Any, _: Array) -> None:
        context[0, at, :] = jnp.zeros((sizes.block, sizes.lanes), context.dtype)

    for g in range(sizes.at_once):
        t = pl.program_id(2) * sizes.at_once + g
        at, fresh = positions(rows[t], sizes), goes_on[t] == 0
        scores_RK = product(own_lanes(scaled(q[0, at, :], sizes), sizes), picked(k, blocks, t, sizes), NT)
        scores_RK += _bias(masks, blocks, extra, t, sizes)
        before_RE = jnp.where(fresh, NEVER, largest_before[...])
        largest_RE = jnp.maximum(scores_RK.max(axis=1, keepdims=True), before_RE)
        weights_RK = jnp.exp(scores_RK - wide(largest_RE, scores_RK.shape[1]))
        kept_RE = jnp.exp(before_RE - largest_RE)
        sum_RE = weights_RK.sum(axis=1, keepdims=True) + kept_RE * jnp.where(fresh, 0, sum_before[...])
        values_RD = product(weights_RK.astype(v.dtype), picked(v, blocks, t, sizes), NN)
        values_RD += wide(kept_RE, sizes.lanes) * jnp.where(fresh, 0, values_before[...])
        largest_before[...], sum_before[...], values_before[...] = largest_RE, sum_RE, values_RD
        context_WD = by_head(values_RD, sizes) / by_head(wide(sum_RE, sizes.lanes), sizes)
        context_WD = jnp.where(is_real(masks, rows[t]), context_WD, 0)
        context[0, at, :] = context_WD.astype(context.dtype)
        log[0, 0, pl.ds(rows[t], 1), :] = as_row((largest_RE + jnp.log(sum_RE))[:, :1])


def _bias(masks: Ref, blocks: Ref, extra: Ref, t: Any, sizes: Sizes) -> Array:
    """What is added to the scores, [R, K]: NEVER for padding, and the log of how often a block counts."""
    of_heads = []
    for a in range(sizes.heads):
        slots = [sizes.slot(t, a, s) for s in range(sizes.slots)]
        row_1K = jnp.concatenate([masks[0, pl.ds(blocks[0, 0, i], 1), :] + extra[0, 0, i] for i in slots], axis=1)
        of_heads.append(jnp.broadcast_to(row_1K, (sizes.block, row_1K.shape[1])))
    return jnp.concatenate(of_heads)
