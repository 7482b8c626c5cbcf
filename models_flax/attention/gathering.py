"""Block-sparse attention as one gather, some heads and some lists at a time.

Legend: as in block_sparse.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array, lax
from jax import numpy as jnp

from bigbird_port.sparse.formulation import Formulation
from models_flax.attention import plain
from models_flax.attention.lists import KeyLists


class AtOnce(NamedTuple):
    """How many heads of all texts are attended to together, and how many lists of each."""

    heads: int
    lists: int


def at_once(how: Formulation, heads: int, lists: int) -> AtOnce:
    """Return what a formulation means for so many heads of all texts, with so many lists each."""
    return AtOnce(min(how.heads_at_once or heads, heads), min(how.blocks_at_once or lists, lists))


def some_at_a_time(run: Callable[[tuple[Array, ...]], Any], rows: tuple[Array, ...], at_once: int) -> Any:
    """Return what ``run`` makes of each row (of all arrays), so many at a time."""
    if at_once >= rows[0].shape[0]:  # open, in an exported program
        return jax.vmap(run)(rows)  # no loop
    if at_once == 1:
        return lax.map(run, rows)  # batch_size=1 would add an axis of 1: 1.4 times the time
    return lax.map(run, rows, batch_size=at_once)


def forward(some: AtOnce, lists: KeyLists, *heads: Array) -> tuple[Array, Array]:
    """Block-sparse attention of every head, [M, P, W, H], and the log of each query's sum of weights, [M, P, W].

    heads: q, k, v [M, P, W, H], mask [M, P, W], and each head's part of the lists, key blocks and counts [M, T, S].
    """
    return some_at_a_time(functools.partial(_one_head, lists=lists, at_once=some.lists), heads, some.heads)


def _one_head(head: tuple[Array, ...], lists: KeyLists, at_once: int) -> tuple[Array, Array]:
    q_PWH, k_PWH, v_PWH, mask_PW, blocks_TS, counts_TS = head
    (_, W, H), T, Q = v_PWH.shape, len(blocks_TS), len(lists.rows)

    def some_lists(_: None, chunk: tuple[Array, ...]) -> tuple[None, tuple[Array, Array]]:
        rows_C, blocks_CS, counts_CS = chunk
        keyed = take(k_PWH, blocks_CS), take(v_PWH, blocks_CS), bias(mask_PW, blocks_CS, counts_CS, q_PWH)
        return None, plain.attend_in_part(q_PWH.at[rows_C].get(mode=INSIDE), *keyed)

    _, (contexts, logs) = lax.scan(some_lists, None, chunks(lists, blocks_TS, counts_TS, at_once))
    contexts_TWH, logs_TW = contexts.reshape(-1, W, H)[:T], logs.reshape(-1, W)[:T]
    global_GWH, logs_GW = added_up(contexts_TWH[Q:], logs_TW[Q:], lists)
    context_PWH = jnp.concatenate((contexts_TWH[:Q], global_GWH)).at[lists.places].get(mode=INSIDE)
    context_PWH *= mask_PW[:, :, None]
    log_PW = jnp.concatenate((logs_TW[:Q], logs_GW)).at[lists.places].get(mode=INSIDE)
    return context_PWH, log_PW


def query_blocks(lists: KeyLists) -> Array:
    """The query block of each list, [T]."""
    return jnp.concatenate((lists.rows, lists.global_blocks[lists.parts]))


def chunks(lists: KeyLists, blocks_TS: Array, counts_TS: Array, at_once: int) -> tuple[Array, ...]:
    """Some lists at a time: their query blocks, key blocks and counts."""
    return tuple(_in_chunks(x, at_once) for x in (query_blocks(lists), blocks_TS, counts_TS))


def take(x_PWH: Array, blocks_CS: Array) -> Array:
    """The rows of each list's key blocks, [C, K, H]."""
    return x_PWH.at[blocks_CS].get(mode=INSIDE).reshape(len(blocks_CS), -1, x_PWH.shape[-1])


def bias(mask_PW: Array, blocks_CS: Array, counts_CS: Array, like: Array) -> Array:
    """What is added to the scores of each list's keys, [C, 1, K]: the log of how often they count."""
    dtype = plain.at_least_float32(like)
    allowed_CSW = mask_PW[blocks_CS] & (counts_CS > 0)[:, :, None]
    bias_CSW = plain.mask_bias(allowed_CSW, dtype) + jnp.log(jnp.maximum(counts_CS, 1).astype(dtype))[:, :, None]
    return bias_CSW.reshape(len(blocks_CS), 1, -1)


def added_up(contexts_EWH: Array, logs_EW: Array, lists: KeyLists) -> tuple[Array, Array]:
    """The context of the global blocks [G, W, H] and the log of their sum of weights, from those of their parts."""
    add = functools.partial(
        jax.ops.segment_sum, segment_ids=lists.parts, num_segments=len(lists.global_blocks), indices_are_sorted=True
    )
    largest_GW = jax.ops.segment_max(logs_EW, lists.parts, len(lists.global_blocks), indices_are_sorted=True)
    weights_EW = jnp.exp(logs_EW - largest_GW[lists.parts])
    values_GWH, sums_GW = add(contexts_EWH * weights_EW[:, :, None]), add(weights_EW)
    return (values_GWH / sums_GW[:, :, None]).astype(contexts_EWH.dtype), largest_GW + jnp.log(sums_GW)


INSIDE = "promise_in_bounds"  # a pattern names no block outside; the check costs time


def _in_chunks(x_T: Array, at_once: int) -> Array:
    """Fold the first axis, padded with zeros, into chunks of equal size, at most ``at_once``."""
    chunks = -(-len(x_T) // at_once)
    missing = -len(x_T) % chunks
    padded = jnp.pad(x_T, ((0, missing),) + ((0, 0),) * (x_T.ndim - 1))
    return padded.reshape(chunks, -1, *x_T.shape[1:])
