"""Self-attention: full, and block-sparse as one gather of key blocks.

Legend: B batch, L length (of the queries), D hidden, N heads, H head size, W block size, P blocks in a row of texts,
T lists of key blocks, S slots in such a list, C lists at once, Q query blocks with one list, G global query blocks, E
lists of theirs, K keys, M places of a buffer for keys. A mask named BL is [B, K] where there are more keys than
queries (a cache, cross-attention), and may be [B, L, K] for full attention.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
from flax import linen as nn
from jax import Array, lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.config import BigBirdConfig
from bigbird_port.formulation import Formulation, formulation
from bigbird_port.pattern import Pattern, fold_repeats
from bigbird_port.static_lists import static_lists

if TYPE_CHECKING:
    from models_flax.sequence import SpreadLists

Taps = dict[str, Array]
Past = tuple[Array, Array, Array | int]  # keys, values, and how many of them there are


class KeyLists(NamedTuple):
    """A Pattern on the device; see bigbird_port.static_lists."""

    key_blocks: Array
    counts: Array
    rows: Array
    global_blocks: Array
    parts: Array
    places: Array


Lists: TypeAlias = "KeyLists | SpreadLists"  # on one device, or on many


def key_lists(pattern: Pattern | None, rounded: bool = False) -> KeyLists | None:
    """Move a pattern to the device; None (full attention) stays None. rounded: static_lists's."""
    return None if pattern is None else KeyLists(*map(jnp.asarray, static_lists(fold_repeats(pattern), rounded)))


def attend(
    q_LH: Array, k_KH: Array, v_KH: Array, bias_LK: Array, dropout: Callable[[Array], Array] | None = None
) -> Array:
    """Return softmax(q k^T / sqrt(H) + bias) v, [..., L, H]; leading axes broadcast, ``bias`` is mask_bias's.

    Scores and their softmax are float32 (at least) even for half-precision inputs.
    """
    if dropout is None:
        return _attend_in_part(q_LH, k_KH, v_KH, bias_LK)[0]
    return dropout(jax.nn.softmax(_scores(q_LH, k_KH, bias_LK), axis=-1)).astype(v_KH.dtype) @ v_KH


def _scores(q_LH: Array, k_KH: Array, bias_LK: Array) -> Array:
    scaled_LH, dtype = q_LH / math.sqrt(q_LH.shape[-1]), _at_least_float32(q_LH)
    return jnp.matmul(scaled_LH, k_KH.swapaxes(-1, -2), preferred_element_type=dtype) + bias_LK


def _attend_in_part(q_LH: Array, k_KH: Array, v_KH: Array, bias_LK: Array) -> tuple[Array, Array]:
    """attend's result, and the logarithm of the sum of all weights, [..., L]: what it weighs beside other keys."""
    scores_LK = _scores(q_LH, k_KH, bias_LK)
    largest_L1 = lax.stop_gradient(scores_LK.max(axis=-1, keepdims=True))
    weights_LK = jnp.exp(scores_LK - largest_L1)
    sum_L1 = weights_LK.sum(axis=-1, keepdims=True)
    # Normalising after the value product spares a pass over the weights.
    values_LH = jnp.matmul(weights_LK.astype(v_KH.dtype), v_KH, preferred_element_type=scores_LK.dtype)
    return (values_LH / sum_L1).astype(v_KH.dtype), (largest_L1 + jnp.log(sum_L1))[..., 0]


def mask_bias(allowed: Array, dtype: DTypeLike) -> Array:
    """Return 0 where ``allowed`` and else a number so low that exp gives 0; a row without any key weighs all alike.

    Half of the lowest number, so that adding a score does not overflow to -inf, whose softmax would be NaN.
    """
    return jnp.where(allowed, 0.0, jnp.finfo(dtype).min / 2).astype(dtype)


def full_attention(
    q_BNLH: Array,
    k_BNLH: Array,
    v_BNLH: Array,
    mask_BL: Array,
    causal: bool,
    dropout: Callable[[Array], Array] | None = None,
) -> Array:
    """Every query attends to every key that is not padding (``causal``: and does not lie ahead); [B, L, N, H].

    The queries are the last of the keys. A mask [B, L, K] says alone who attends to whom, ``causal`` or not. Some
    queries at a time, as the device's formulation has it, where nothing is dropped.
    """
    L, K = q_BNLH.shape[2], k_BNLH.shape[2]
    step = L if dropout else _queries_at_once(q_BNLH, K)

    def some_queries(q_BNRH: Array, mask: Array, start: Array | int) -> Array:
        allowed = mask[:, None] if mask.ndim == 3 else mask[:, None, None, :]
        if causal and mask.ndim == 2:
            allowed = allowed & (jnp.arange(K) <= jnp.arange(step)[:, None] + start + (K - L))
        return attend(q_BNRH, k_BNLH, v_BNLH, mask_bias(allowed, _at_least_float32(q_BNLH)), dropout)

    def queries_from(start: Array) -> Array:
        mask = mask_BL if mask_BL.ndim == 2 else lax.dynamic_slice_in_dim(mask_BL, start, step, axis=1)
        return some_queries(lax.dynamic_slice_in_dim(q_BNLH, start, step, axis=2), mask, start)

    if step == L:
        return some_queries(q_BNLH, mask_BL, 0).swapaxes(1, 2)
    starts = jnp.minimum(jnp.arange(0, L, step), L - step)  # the last ones overlap rather than be fewer
    contexts_CBNRH = lax.map(queries_from, starts)
    whole = contexts_CBNRH[:-1].transpose(1, 0, 3, 2, 4)
    last = contexts_CBNRH[-1].swapaxes(1, 2)[:, whole.shape[1] * step - L :]
    return jnp.concatenate((whole.reshape(whole.shape[0], -1, *whole.shape[3:]), last), axis=1)


def _queries_at_once(q_BNLH: Array, K: int) -> int:
    """How many queries of all heads and texts attend at once."""
    B, N, L, _ = q_BNLH.shape
    limit = formulation("flax", jax.default_backend()).scores_at_once
    return max(1, L if limit is None else min(L, limit // (B * N * K)))


def _at_least_float32(x: Array) -> DTypeLike:
    return jnp.promote_types(x.dtype, jnp.float32)


def block_sparse_attention(
    q_BNLH: Array,
    k_BNLH: Array,
    v_BNLH: Array,
    mask_BL: Array,
    lists: Lists,
    block_size: int,
    how: Formulation | None = None,
) -> Array:
    """Each query block attends to its own list of key blocks, the global blocks to their whole text; [B, L, N, H].

    The context of padded queries is 0. Some heads and lists at a time (``how``, None: as the device's formulation has
    it) keep memory linear in L; the gradient computes the probabilities again (in reverse mode, of any order; jax.jvp
    does not go through it). The batch is padded to whole blocks inside. Values may be wider than keys.
    """
    if not isinstance(lists, KeyLists):
        return lists.attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, block_size)
    how = how or formulation("flax", jax.default_backend())
    B, N, length, _ = q_BNLH.shape
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = jnp.pad(mask_BL, ((0, 0), (0, missing)))
    every_head = (
        *(x.reshape(B * N, -1, block_size, x.shape[-1]) for x in (q_BNLH, k_BNLH, v_BNLH)),
        jnp.repeat(mask_BL.reshape(B, -1, block_size), N, axis=0),
        *(jnp.tile(x, (B, 1, 1)) for x in (lists.key_blocks, lists.counts)),
    )

    def one_head(head: tuple[Array, ...]) -> Array:
        return _one_head(*head, lists, how.blocks_at_once)

    if how.heads_at_once == 1:
        heads = lax.map(one_head, every_head)  # batch_size=1 would add an axis of 1: 1.4 times the time
    else:
        heads = lax.map(one_head, every_head, batch_size=how.heads_at_once or B * N)
    return heads.reshape(B, N, -1, heads.shape[-1]).swapaxes(1, 2)[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def _one_head(
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
    return _one_head_forward(q_PWH, k_PWH, v_PWH, mask_PW, blocks_TS, counts_TS, lists, at_once)[0]


def _one_head_forward(*arguments: Any) -> tuple[Array, tuple[Any, ...]]:
    """_one_head, and what its gradient wants: what went in, what came out, and each query's sum of weights (log)."""
    *kept, at_once = arguments
    q_PWH, k_PWH, v_PWH, mask_PW, blocks_TS, counts_TS, lists = kept
    (_, W, H), T, Q = v_PWH.shape, len(blocks_TS), len(lists.rows)

    def some_lists(_: None, chunk: tuple[Array, ...]) -> tuple[None, tuple[Array, Array]]:
        rows_C, blocks_CS, counts_CS = chunk
        keyed = _take(k_PWH, blocks_CS), _take(v_PWH, blocks_CS), _bias(mask_PW, blocks_CS, counts_CS, q_PWH)
        return None, _attend_in_part(q_PWH.at[rows_C].get(mode=_INSIDE), *keyed)

    _, (contexts, logs) = lax.scan(some_lists, None, _chunks(lists, blocks_TS, counts_TS, at_once))
    contexts_TWH, logs_TW = contexts.reshape(-1, W, H)[:T], logs.reshape(-1, W)[:T]
    global_GWH, logs_GW = _added_up(contexts_TWH[Q:], logs_TW[Q:], lists)
    context_PWH = jnp.concatenate((contexts_TWH[:Q], global_GWH)).at[lists.places].get(mode=_INSIDE)
    context_PWH *= mask_PW[:, :, None]
    log_PW = jnp.concatenate((logs_TW[:Q], logs_GW)).at[lists.places].get(mode=_INSIDE)
    return context_PWH, (*kept, context_PWH, log_PW)


def _one_head_backward(at_once: int | None, kept: tuple[Any, ...], grad_PWH: Array) -> tuple[Any, ...]:
    """The gradients of queries, keys and values: the weights of some lists at a time are computed again."""
    q_PWH, k_PWH, v_PWH, mask_PW, blocks_TS, counts_TS, lists, context_PWH, log_PW = kept
    dtype, scale = log_PW.dtype, 1 / math.sqrt(q_PWH.shape[-1])
    grad_PWH = grad_PWH * mask_PW[:, :, None]
    delta_PW = jnp.einsum("pwh,pwh->pw", grad_PWH, context_PWH, preferred_element_type=dtype)
    product = functools.partial(jnp.einsum, preferred_element_type=dtype)

    def some_lists(sums: tuple[Array, Array], chunk: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        rows_C, blocks_CS, counts_CS = chunk
        q_CWH, grad_CWH, log_CW, delta_CW = (
            x.at[rows_C].get(mode=_INSIDE) for x in (q_PWH, grad_PWH, log_PW, delta_PW)
        )
        k_CKH, v_CKH = _take(k_PWH, blocks_CS), _take(v_PWH, blocks_CS)
        scores_CWK = _scores(q_CWH, k_CKH, _bias(mask_PW, blocks_CS, counts_CS, q_PWH))
        weights_CWK = jnp.exp(scores_CWK - log_CW[:, :, None])
        dscores_CWK = weights_CWK * (product("cwh,ckh->cwk", grad_CWH, v_CKH) - delta_CW[:, :, None])
        dscores_CWK, weights_CWK = dscores_CWK.astype(k_CKH.dtype), weights_CWK.astype(k_CKH.dtype)
        found = product("cwk,cwh->ckh", dscores_CWK, q_CWH), product("cwk,cwh->ckh", weights_CWK, grad_CWH)
        dk_PWH, dv_PWH = (
            x_PWH.at[blocks_CS].add(dx_CKH.reshape(*blocks_CS.shape, *x_PWH.shape[1:]), mode=_INSIDE)
            for x_PWH, dx_CKH in zip(sums, found, strict=True)
        )
        return (dk_PWH, dv_PWH), product("cwk,ckh->cwh", dscores_CWK, k_CKH)

    zeros = jnp.zeros(k_PWH.shape, dtype), jnp.zeros(v_PWH.shape, dtype)
    (dk_PWH, dv_PWH), dq = lax.scan(some_lists, zeros, _chunks(lists, blocks_TS, counts_TS, at_once))
    dq_TWH = dq.reshape(-1, *q_PWH.shape[1:])[: len(blocks_TS)]
    dq_PWH = jnp.zeros(q_PWH.shape, dtype).at[_rows(lists)].add(dq_TWH, mode=_INSIDE)
    gradients = (x.astype(q_PWH.dtype) for x in (dq_PWH * scale, dk_PWH * scale, dv_PWH))
    return *gradients, None, None, None, None


_one_head.defvjp(_one_head_forward, _one_head_backward)


def _rows(lists: KeyLists) -> Array:
    """The query block of each list, [T]."""
    return jnp.concatenate((lists.rows, lists.global_blocks[lists.parts]))


def _chunks(lists: KeyLists, blocks_TS: Array, counts_TS: Array, at_once: int | None) -> tuple[Array, ...]:
    """Some lists at a time: their query blocks, key blocks and counts."""
    return tuple(_in_chunks(x, at_once) for x in (_rows(lists), blocks_TS, counts_TS))


def _take(x_PWH: Array, blocks_CS: Array) -> Array:
    """The rows of each list's key blocks, [C, K, H]."""
    return x_PWH.at[blocks_CS].get(mode=_INSIDE).reshape(len(blocks_CS), -1, x_PWH.shape[-1])


def _bias(mask_PW: Array, blocks_CS: Array, counts_CS: Array, like: Array) -> Array:
    """What is added to the scores of each list's keys, [C, 1, K]: the log of how often they count."""
    dtype = _at_least_float32(like)
    allowed_CSW = mask_PW[blocks_CS] & (counts_CS > 0)[:, :, None]
    bias_CSW = mask_bias(allowed_CSW, dtype) + jnp.log(jnp.maximum(counts_CS, 1).astype(dtype))[:, :, None]
    return bias_CSW.reshape(len(blocks_CS), 1, -1)


def _added_up(contexts_EWH: Array, logs_EW: Array, lists: KeyLists) -> tuple[Array, Array]:
    """The context of the global blocks [G, W, H] and the log of their sum of weights, from those of their parts."""
    add = functools.partial(
        jax.ops.segment_sum, segment_ids=lists.parts, num_segments=len(lists.global_blocks), indices_are_sorted=True
    )
    largest_GW = jax.ops.segment_max(logs_EW, lists.parts, len(lists.global_blocks), indices_are_sorted=True)
    weights_EW = jnp.exp(logs_EW - largest_GW[lists.parts])
    values_GWH, sums_GW = add(contexts_EWH * weights_EW[:, :, None]), add(weights_EW)
    return (values_GWH / sums_GW[:, :, None]).astype(contexts_EWH.dtype), largest_GW + jnp.log(sums_GW)


_INSIDE = "promise_in_bounds"  # a pattern names no block outside; the check costs time


def _in_chunks(x_T: Array, at_once: int | None) -> Array:
    """Fold the first axis, padded with zeros, into chunks of equal size, at most ``at_once`` (None: one chunk)."""
    chunks = -(-len(x_T) // (at_once or len(x_T)))
    missing = -len(x_T) % chunks
    padded = jnp.pad(x_T, ((0, missing),) + ((0, 0),) * (x_T.ndim - 1))
    return padded.reshape(chunks, -1, *x_T.shape[1:])


class BigBirdSelfAttention(nn.Module):
    """Queries, keys and values, and the attention between them."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.query = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias, dtype=self.dtype)
        self.key = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias, dtype=self.dtype)
        self.value = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias, dtype=self.dtype)
        self.dropout = nn.Dropout(self.config.attention_probs_dropout_prob)

    def __call__(
        self,
        x_BLD: Array,
        mask_BL: Array,
        lists: Lists | None,
        head_mask_N: Array | None = None,
        past: Past | None = None,
        source_BKD: Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Array, Taps]:
        """Return the context [B, L, D] and the taps query, key, value [B, N, L, H] and context [B, L, N, H].

        past: buffers of keys and values, filled up to an index. source_BKD: what cross-attention attends to, unless
        ``past`` is it.
        """
        q_BNLH = self._split_heads(self.query(x_BLD))
        if source_BKD is not None and past is not None:
            k_BNKH, v_BNKH, _ = past
        else:
            keyed_BKD = x_BLD if source_BKD is None else source_BKD
            k_BNKH, v_BNKH = (self._split_heads(dense(keyed_BKD)) for dense in (self.key, self.value))
            if past is not None:
                k_BNKH, v_BNKH = (
                    _written(buffer, x, past[2]) for buffer, x in zip(past[:2], (k_BNKH, v_BNKH), strict=True)
                )
        if lists is None:
            causal = self.config.is_decoder and source_BKD is None
            dropout = None if deterministic else lambda weights: self.dropout(weights, deterministic=False)
            context_BLNH = full_attention(q_BNLH, k_BNKH, v_BNKH, mask_BL, causal, dropout)
        else:
            context_BLNH = block_sparse_attention(q_BNLH, k_BNKH, v_BNKH, mask_BL, lists, self.config.block_size)
        if head_mask_N is not None:  # the same as to multiply the probabilities of the head
            context_BLNH = context_BLNH * head_mask_N[:, None].astype(context_BLNH.dtype)
        taps = {"query": q_BNLH, "key": k_BNKH, "value": v_BNKH, "context": context_BLNH}
        return context_BLNH.reshape(x_BLD.shape), taps

    def _split_heads(self, x_BLD: Array) -> Array:
        B, L, _ = x_BLD.shape
        return x_BLD.reshape(B, L, self.config.num_attention_heads, self.config.head_dim).swapaxes(1, 2)


def _written(buffer_BNMH: Array, x_BNLH: Array, index: Array | int) -> Array:
    """The buffer with new keys or values from place ``index`` on."""
    return lax.dynamic_update_slice_in_dim(buffer_BNMH, x_BNLH.astype(buffer_BNMH.dtype), index, axis=2)


class BigBirdSelfOutput(nn.Module):
    """The output projection of the attention, its residual and LayerNorm."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.dense = nn.Dense(self.config.hidden_size, dtype=self.dtype)
        self.LayerNorm = nn.LayerNorm(epsilon=self.config.layer_norm_eps, use_fast_variance=False, dtype=self.dtype)
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)

    def __call__(self, context_BLD: Array, x_BLD: Array, deterministic: bool) -> Array:
        """Return LayerNorm(x + dropout(dense(context))), [B, L, D]."""
        return self.LayerNorm(x_BLD + self.dropout(self.dense(context_BLD), deterministic=deterministic))


class BigBirdAttention(nn.Module):
    """Attention, to the text itself or to an encoder's states, and its output."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.self = BigBirdSelfAttention(self.config, self.dtype)
        self.output = BigBirdSelfOutput(self.config, self.dtype)

    def __call__(
        self,
        x_BLD: Array,
        mask_BL: Array,
        lists: Lists | None,
        head_mask_N: Array | None = None,
        past: Past | None = None,
        source_BKD: Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Array, Taps]:
        """Return the sublayer's output [B, L, D] and its taps, attention_output among them."""
        context_BLD, taps = self.self(x_BLD, mask_BL, lists, head_mask_N, past, source_BKD, deterministic)
        output_BLD = self.output(context_BLD, x_BLD, deterministic)
        return output_BLD, taps | {"attention_output": output_BLD}
