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

from bigbird_port.sparse.formulation import Formulation
from models_flax.attention import gathering, plain
from models_flax.attention.gathering import INSIDE, AtOnce, bias, chunks, query_blocks, take
from models_flax.attention.lists import KeyLists
from models_flax.target import by_target


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def every_head(how: Formulation | None, lists: KeyLists, *heads: Array) -> Array:
    """Block-sparse attention of every head, [M, P, W, H]; ``heads`` are gathering.forward's.

    One softmax runs over a query block's whole list, in which a block weighs as often as it counts. how: None takes
    the formulation of the target.
    """
    return _by_target(how, gathering.context, lists, *heads)


def _forward(how: Formulation | None, lists: KeyLists, *heads: Array) -> tuple[Array, Any]:
    """every_head, and what its gradient wants: what went in, what came out, and each query's sum of weights (log)."""
    context_MPWH, log_MPW = _by_target(how, gathering.forward, lists, *heads)
    return context_MPWH, (lists, *heads, context_MPWH, log_MPW)


def _backward(how: Formulation | None, kept: Any, grad_MPWH: Array) -> tuple[Any, ...]:
    """The gradients of queries, keys and values."""
    gradients = _by_target(how, _gradients, *kept, grad_MPWH)
    return None, *gradients, None, None, None


every_head.defvjp(_forward, _backward)


def _by_target(how: Formulation | None, run: Any, lists: KeyLists, *heads: Array) -> Any:
    M, T = heads[4].shape[:2]
    return by_target(lambda way: gathering.at_once(way, M, T), run, lists, *heads, how=how)


def _gradients(some: AtOnce, lists: KeyLists, *heads: Array) -> Any:
    return gathering.some_at_a_time(functools.partial(_one_head, lists=lists, at_once=some.lists), heads, some.heads)


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
