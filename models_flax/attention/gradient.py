"""The gradient of block-sparse attention, which computes the probabilities again rather than keep them.

Legend: as in block_sparse.py.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
from jax import Array, lax
from jax import numpy as jnp

from bigbird_port.sparse.formulation import Formulation
from models_flax.attention import gathering, kernels, plain
from models_flax.attention.gathering import INSIDE, AtOnce, bias, chunks, query_blocks, take
from models_flax.attention.lists import KeyLists
from models_flax.target import by_target


class _Way(NamedTuple):
    """How it is computed: so many heads and lists at once, or (None) by the kernels of the device."""

    at_once: AtOnce | None
    block_size: int


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def attention(how: Formulation | None, block_size: int, lists: KeyLists, *arrays: Array) -> Array:
    """Block-sparse attention of whole blocks, [B, N, L, H]; arrays: q, k, v [B, N, L, H], and the mask [B, L].

    One softmax runs over a query block's whole list, in which a block weighs as often as it counts. how: None takes
    the formulation of the target.
    """
    return _by_target(how, block_size, _context, lists, *arrays)


def _forward(how: Formulation | None, block_size: int, lists: KeyLists, *arrays: Array) -> tuple[Array, Any]:
    """attention, and what its gradient wants: what went in, what came out, and each query's sum of weights (log)."""
    context_BNLH, log_BNL = _by_target(how, block_size, _with_log, lists, *arrays)
    return context_BNLH, (lists, *arrays, context_BNLH, log_BNL)


def _backward(how: Formulation | None, block_size: int, kept: Any, grad_BNLH: Array) -> tuple[Any, ...]:
    """The gradients of queries, keys and values."""
    return None, *_by_target(how, block_size, _gradients, *kept, grad_BNLH), None


attention.defvjp(_forward, _backward)


def _by_target(how: Formulation | None, block_size: int, run: Any, lists: KeyLists, *arrays: Array) -> Any:
    (B, N, _, _), T = arrays[0].shape, lists.key_blocks.shape[1]

    def choose(way: Formulation) -> _Way:
        by_kernels = way.kernels and kernels.fits(arrays[0], arrays[2])
        return _Way(None if by_kernels else gathering.at_once(way, B * N, T), block_size)

    return by_target(choose, run, lists, *arrays, how=how)


def _context(way: _Way, lists: KeyLists, *arrays: Array) -> Array:
    return _with_log(way, lists, *arrays)[0]


def _with_log(way: _Way, lists: KeyLists, *arrays: Array) -> tuple[Array, Array]:
    """The context, and the log of each query's sum of weights, [B, N, L]."""
    if way.at_once is None:
        return kernels.attend(way.block_size, lists, *arrays)
    q_BNLH, _, v_BNLH, _ = arrays
    context_MPWH, log_MPW = gathering.forward(way.at_once, lists, *_by_head(way, lists, *arrays))
    return context_MPWH.reshape(v_BNLH.shape), log_MPW.reshape(q_BNLH.shape[:3])


def _gradients(way: _Way, lists: KeyLists, *arrays: Array) -> tuple[Array, Array, Array]:
    if way.at_once is None:
        return kernels.gradients(way.block_size, lists, *arrays)
    *given, context_BNLH, log_BNL, grad_BNLH = arrays
    made = (_blocks(way, x) for x in (context_BNLH, log_BNL, grad_BNLH))
    one_head = functools.partial(_one_head, lists=lists, at_once=way.at_once.lists)
    found = gathering.some_at_a_time(one_head, (*_by_head(way, lists, *given), *made), way.at_once.heads)
    dq, dk, dv = (x.reshape(like.shape) for x, like in zip(found, given, strict=False))
    return dq, dk, dv


def _by_head(way: _Way, lists: KeyLists, *arrays: Array) -> tuple[Array, ...]:
    """What gathering takes: q, k, v [M, P, W, H], the mask [M, P, W], and each head's part of the lists [M, T, S]."""
    *values, mask_BL = arrays
    B, N = values[0].shape[:2]
    mask_MPW = jnp.repeat(mask_BL.reshape(B, -1, way.block_size), N, axis=0)
    return (
        *(_blocks(way, x) for x in values),
        mask_MPW,
        *(jnp.tile(x, (B, 1, 1)) for x in (lists.key_blocks, lists.counts)),
    )


def _blocks(way: _Way, x_BNL: Array) -> Array:
    """Texts and heads in one axis, and blocks: [M, P, W, ..]."""
    B, N, L, *rest = x_BNL.shape
    return x_BNL.reshape(B * N, L // way.block_size, way.block_size, *rest)


def _one_head(head: tuple[Array, ...], lists: KeyLists, at_once: int) -> tuple[Array, Array, Array]:
    """One head's gradients: the weights of some lists at a time are computed again."""
    q_PWH, k_PWH, v_PWH, mask_PW, blocks_TS, counts_TS, context_PWH, log_PW, grad_PWH = head
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
    dq_PWH, dk_PWH, dv_PWH = (x.astype(q_PWH.dtype) for x in (dq_PWH * scale, dk_PWH * scale, dv_PWH))
    return dq_PWH, dk_PWH, dv_PWH
