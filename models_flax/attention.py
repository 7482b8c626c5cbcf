"""Self-attention: full, and block-sparse as one gather of key blocks.

Legend: B batch, L length (of the queries), D hidden, N heads, H head size, W block size, n blocks in the sequence,
Q query blocks with a key list of their own, S slots in such a list, C query blocks at once, K keys, M places of a
buffer for keys, G rows of the global blocks. A mask named BL is [B, K] where there are more keys than queries (a
cache, cross-attention), and may be [B, L, K] for full attention.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
from flax import linen as nn
from jax import Array, lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.config import BigBirdConfig
from bigbird_port.pattern import Pattern

if TYPE_CHECKING:
    from models_flax.sequence import SpreadLists

BLOCKS_AT_ONCE = 8  # measured by benchmarks/attention.py: more leave the cache, fewer cost calls
Taps = dict[str, Array]
Past = tuple[Array, Array, Array | int]  # keys, values, and how many of them there are


class KeyLists(NamedTuple):
    """A Pattern on the device: key_blocks int32 [N, Q, S] and live bool [N, Q, S]."""

    key_blocks: Array
    live: Array


Lists: TypeAlias = "KeyLists | SpreadLists"  # on one device, or on many


def key_lists(pattern: Pattern | None) -> KeyLists | None:
    """Move a pattern to the device; None (full attention) stays None."""
    if pattern is None:
        return None
    return KeyLists(jnp.asarray(pattern.key_blocks), jnp.asarray(pattern.live))


def attend(
    q_LH: Array, k_KH: Array, v_KH: Array, bias_LK: Array, dropout: Callable[[Array], Array] | None = None
) -> Array:
    """Return softmax(q k^T / sqrt(H) + bias) v, [..., L, H]; leading axes broadcast, ``bias`` is mask_bias's.

    Scores and their softmax are float32 (at least) even for half-precision inputs.
    """
    dtype = _at_least_float32(q_LH)
    scores_LK = jnp.matmul(q_LH / math.sqrt(q_LH.shape[-1]), k_KH.swapaxes(-1, -2), preferred_element_type=dtype)
    scores_LK += bias_LK
    if dropout:
        return dropout(jax.nn.softmax(scores_LK, axis=-1)).astype(v_KH.dtype) @ v_KH
    # Normalising after the value product spares a pass over the weights.
    weights_LK = jnp.exp(scores_LK - lax.stop_gradient(scores_LK.max(axis=-1, keepdims=True)))
    sums_LH = jnp.matmul(weights_LK.astype(v_KH.dtype), v_KH, preferred_element_type=dtype)
    return (sums_LH / weights_LK.sum(axis=-1, keepdims=True)).astype(v_KH.dtype)


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

    The queries are the last of the keys. A mask [B, L, K] says alone who attends to whom, ``causal`` or not.
    """
    L, K = q_BNLH.shape[2], k_BNLH.shape[2]
    allowed = mask_BL[:, None] if mask_BL.ndim == 3 else mask_BL[:, None, None, :]
    if causal and mask_BL.ndim == 2:
        allowed = allowed & jnp.tril(jnp.ones((L, K), bool), K - L)
    return attend(q_BNLH, k_BNLH, v_BNLH, mask_bias(allowed, _at_least_float32(q_BNLH)), dropout).swapaxes(1, 2)


def _at_least_float32(x: Array) -> DTypeLike:
    return jnp.promote_types(x.dtype, jnp.float32)


def block_sparse_attention(
    q_BNLH: Array, k_BNLH: Array, v_BNLH: Array, mask_BL: Array, lists: Lists, block_size: int
) -> Array:
    """Each query block attends to its own list of key blocks, the global blocks to all keys; [B, L, N, H].

    The context of padded queries is 0. Values may be wider than keys. One head at a time and a few query blocks of it
    keep memory linear in L, small, and in the cache; the gradient computes the probabilities again. The batch is
    padded to whole blocks inside.
    """
    if not isinstance(lists, KeyLists):
        return lists.attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, block_size)
    B, N, length, _ = q_BNLH.shape
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = jnp.pad(mask_BL, ((0, 0), (0, missing)))
    every_head = (
        *(x.reshape(B * N, *x.shape[2:]) for x in (q_BNLH, k_BNLH, v_BNLH)),
        jnp.repeat(mask_BL, N, axis=0),
        *(jnp.tile(x, (B, 1, 1)) for x in lists),
    )
    heads = lax.map(_recomputed(lambda head: _one_head(head, block_size)), every_head)
    context_BLNH = heads.reshape(B, N, *heads.shape[1:]).swapaxes(1, 2)
    return context_BLNH[:, :length]


def _one_head(head: tuple[Array, ...], W: int) -> Array:
    """Block-sparse attention of one head of one text, [L, H]; ``head`` is an element of every_head.

    One softmax runs over a query block's whole list, so that a block that stands in it twice counts twice.
    """
    q_LH, k_LH, v_LH, mask_L, blocks_QS, live_QS = head
    L, H = q_LH.shape
    Q, S = blocks_QS.shape
    k_nWH, v_nWH = (x.reshape(L // W, W, -1) for x in (k_LH, v_LH))
    mask_nW = mask_L.reshape(L // W, W)
    # block 0 and, if the batch reaches it, the pattern's last block: G rows
    q_GH = jnp.concatenate((q_LH[:W], q_LH[(Q + 1) * W :]))
    global_GH = attend(q_GH, k_LH, v_LH, mask_bias(mask_L, _at_least_float32(q_LH)))

    def some_blocks(_: None, rows: tuple[Array, ...]) -> tuple[None, Array]:
        q_CWH, blocks_CS, live_CS = rows
        C = blocks_CS.shape[0]
        k_CKH, v_CKH = (x.at[blocks_CS].get(mode=_INSIDE).reshape(C, S * W, -1) for x in (k_nWH, v_nWH))
        allowed_CSW = mask_nW[blocks_CS] & live_CS[:, :, None]
        bias_C1K = mask_bias(allowed_CSW.reshape(C, 1, S * W), _at_least_float32(q_LH))
        return None, attend(q_CWH, k_CKH, v_CKH, bias_C1K)

    q_QWH = q_LH[W : (Q + 1) * W].reshape(Q, W, H)
    _, middle = lax.scan(_recomputed(some_blocks), None, tuple(_in_chunks(x) for x in (q_QWH, blocks_QS, live_QS)))
    contexts = (global_GH[:W], middle.reshape(-1, v_LH.shape[-1])[: Q * W], global_GH[W:])
    return jnp.concatenate(contexts) * mask_L[:, None]


# In a loop's body, which the gradient then runs again rather than keep what the first run computed.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)
_INSIDE = "promise_in_bounds"  # a pattern names no block outside; the check costs time


def _in_chunks(rows: Array) -> Array:
    """Fold the first axis, padded with zeros, into chunks of BLOCKS_AT_ONCE."""
    missing = -rows.shape[0] % BLOCKS_AT_ONCE
    padded = jnp.pad(rows, ((0, missing),) + ((0, 0),) * (rows.ndim - 1))
    return padded.reshape(-1, BLOCKS_AT_ONCE, *rows.shape[1:])


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
