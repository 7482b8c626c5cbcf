"""The gradient of block-sparse attention, which computes the probabilities again rather than keep them.

Legend: as in block_sparse.py.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from jax import Array, lax
from jax import numpy as jnp

from models_flax.attention import kernels, plain
from models_flax.attention.gathering import INSIDE, bias, chunks, one_head_forward, query_blocks, take
from models_flax.attention.lists import KeyLists


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def one_head(
    q_PWH: Array,
    k_PWH: Array,
    v_PWH: Array,
    mask_PW: Array,
    blocks_TS: Array,
    counts_TS: Array,
    lists: KeyLists,
    at_once: int | None,
) -> Array:
    """Block-sparse attention of one head of one row of blocks, [P, W, H]; blocks and counts are its part of the lists.

    One softmax runs over a query block's whole list, in which a block weighs as often as it counts.
    """
    return one_head_forward(q_PWH, k_PWH, v_PWH, mask_PW, blocks_TS, counts_TS, lists, at_once)[0]


def _one_head_backward(at_once: int | None, kept: tuple[Any, ...], grad_PWH: Array) -> tuple[Any, ...]:
    """The gradients of queries, keys and values: the weights of some lists at a time are computed again."""
    q_PWH, k_PWH, v_PWH, mask_PW, blocks_TS, counts_TS, lists, context_PWH, log_PW = kept
    dtype, scale = log_PW.dtype, 1 / math.sqrt(q_PWH.shape[-1])
    grad_PWH = grad_PWH * mask_PW[:, :, None]
    delta_PW = jnp.einsum("pwh,pwh->pw", grad_PWH, context_PWH, preferred_element_type=dtype)
    product = functools.partial(jnp.einsum, preferred_element_type=dtype)

    def some_lists(sums: tuple[Array, Array], chunk: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        rows_C, blocks_CS, counts_CS = chunk
        q_CWH, grad_CWH, log_CW, delta_CW = (x.at[rows_C].get(mode=INSIDE) for x in (q_PWH, grad_PWH, log_PW, delta_PW))
        k_CKH, v_CKH = take(k_PWH, blocks_CS), take(v_PWH, blocks_CS)
        scores_CWK = plain.scores(q_CWH, k_CKH, bias(mask_PW, blocks_CS, counts_CS, q_PWH))
        weights_CWK = jnp.exp(scores_CWK - log_CW[:, :, None])
        dscores_CWK = weights_CWK * (product("cwh,ckh->cwk", grad_CWH, v_CKH) - delta_CW[:, :, None])
        dscores_CWK, weights_CWK = dscores_CWK.astype(k_CKH.dtype), weights_CWK.astype(k_CKH.dtype)
        found = product("cwk,cwh->ckh", dscores_CWK, q_CWH), product("cwk,cwh->ckh", weights_CWK, grad_CWH)
        dk_PWH, dv_PWH = (
            x_PWH.at[blocks_CS].add(dx_CKH.reshape(*blocks_CS.shape, *x_PWH.shape[1:]), mode=INSIDE)
            for x_PWH, dx_CKH in zip(sums, found, strict=True)
        )
        return (dk_PWH, dv_PWH), product("cwk,ckh->cwh", dscores_CWK, k_CKH)

    zeros = jnp.zeros(k_PWH.shape, dtype), jnp.zeros(v_PWH.shape, dtype)
    (dk_PWH, dv_PWH), dq = lax.scan(some_lists, zeros, chunks(lists, blocks_TS, counts_TS, at_once))
    dq_TWH = dq.reshape(-1, *q_PWH.shape[1:])[: len(blocks_TS)]
    dq_PWH = jnp.zeros(q_PWH.shape, dtype).at[query_blocks(lists)].add(dq_TWH, mode=INSIDE)
    gradients = (x.astype(q_PWH.dtype) for x in (dq_PWH * scale, dk_PWH * scale, dv_PWH))
    return *gradients, None, None, None, None


one_head.defvjp(one_head_forward, _one_head_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def by_kernels(block_size: int, lists: KeyLists, *arrays: Array) -> Array:
    """Block-sparse attention of all heads by the kernels of a TPU, [B, N, L, H]; ``arrays``: kernels.attend's."""
    return kernels.attend(block_size, lists, *arrays)[0]


def _by_kernels_forward(block_size: int, lists: KeyLists, *arrays: Array) -> tuple[Array, tuple[Any, ...]]:
    context_BNLH, log_BNL = kernels.attend(block_size, lists, *arrays)
    return context_BNLH, (lists, *arrays, context_BNLH, log_BNL)


def _by_kernels_backward(block_size: int, kept: tuple[Any, ...], grad_BNLH: Array) -> tuple[Any, ...]:
    return None, *kernels.gradients(block_size, *kept, grad_BNLH), None


by_kernels.defvjp(_by_kernels_forward, _by_kernels_backward)
