"""Self-attention: full, and block-sparse as one gather of key blocks.

Legend: B batch, L length, D hidden, N heads, H head size, W block size, n blocks in the sequence, Q query blocks
with a key list of their own, S slots in such a list, C query blocks at once, K keys, G rows of the
global blocks.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import linen as nn
from jax import Array, lax
from jax import numpy as jnp

from bigbird_port.config import BigBirdConfig
from bigbird_port.pattern import Pattern

BLOCKS_AT_ONCE = 4  # measured by benchmarks/attention.py: more leave the cache, fewer cost calls

Taps = dict[str, Array]


class KeyLists(NamedTuple):
    """A Pattern on the device: key_blocks int32 [N, Q, S] and live bool [N, Q, S]."""

    key_blocks: Array
    live: Array


def key_lists(pattern: Pattern | None) -> KeyLists | None:
    """Move a pattern to the device; None (full attention) stays None."""
    if pattern is None:
        return None
    return KeyLists(jnp.asarray(pattern.key_blocks), jnp.asarray(pattern.live))


def attend(
    q_LH: Array, k_KH: Array, v_KH: Array, bias_LK: Array, dropout: Callable[[Array], Array] | None = None
) -> Array:
    """Return softmax(q k^T / sqrt(H) + bias) v, [..., L, H]; leading axes broadcast, ``bias`` is mask_bias's."""
    scores_LK = (q_LH / math.sqrt(q_LH.shape[-1])) @ k_KH.swapaxes(-1, -2)
    scores_LK += bias_LK
    if dropout:
        return dropout(jax.nn.softmax(scores_LK, axis=-1)) @ v_KH
    # Normalising after the value product spares a pass over the weights.
    weights_LK = jnp.exp(scores_LK - lax.stop_gradient(scores_LK.max(axis=-1, keepdims=True)))
    return (weights_LK @ v_KH) / weights_LK.sum(axis=-1, keepdims=True)


def mask_bias(allowed: Array, dtype: jnp.dtype) -> Array:
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
    """Every query attends to every key that is not padding (``causal``: and does not lie ahead); [B, L, N, H]."""
    allowed = mask_BL[:, None, None, :]
    if causal:
        L = mask_BL.shape[1]
        allowed = allowed & jnp.tril(jnp.ones((L, L), bool))
    return attend(q_BNLH, k_BNLH, v_BNLH, mask_bias(allowed, q_BNLH.dtype), dropout).swapaxes(1, 2)


def block_sparse_attention(
    q_BNLH: Array, k_BNLH: Array, v_BNLH: Array, mask_BL: Array, lists: KeyLists, block_size: int
) -> Array:
    """Each query block attends to its own list of key blocks, the global blocks to all keys; [B, L, N, H].

    The context of padded queries is 0. One head at a time and a few query blocks of it keep memory linear in L,
    small, and in the cache. The batch is padded to whole blocks inside.
    """
    B, N, length, _ = q_BNLH.shape
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = jnp.pad(mask_BL, ((0, 0), (0, missing)))
    every_head = (
        *(x.reshape(B * N, *x.shape[2:]) for x in (q_BNLH, k_BNLH, v_BNLH)),
        jnp.repeat(mask_BL, N, axis=0),
        *(jnp.tile(x, (B, 1, 1)) for x in lists),
    )
    heads = lax.map(lambda head: _one_head(head, block_size), every_head)
    context_BLNH = heads.reshape(q_BNLH.shape).swapaxes(1, 2)
    return context_BLNH[:, :length]


def _one_head(head: tuple[Array, ...], W: int) -> Array:
    """Block-sparse attention of one head of one text, [L, H]; ``head`` is an element of every_head.

    One softmax runs over a query block's whole list, so that a block that stands in it twice counts twice.
    """
    q_LH, k_LH, v_LH, mask_L, blocks_QS, live_QS = head
    L, H = q_LH.shape
    Q, S = blocks_QS.shape
    k_nWH, v_nWH = (x.reshape(L // W, W, H) for x in (k_LH, v_LH))
    mask_nW = mask_L.reshape(L // W, W)
    # block 0 and, if the batch reaches it, the pattern's last block: G rows
    q_GH = jnp.concatenate((q_LH[:W], q_LH[(Q + 1) * W :]))
    global_GH = attend(q_GH, k_LH, v_LH, mask_bias(mask_L, q_LH.dtype))

    def some_blocks(_: None, rows: tuple[Array, ...]) -> tuple[None, Array]:
        q_CWH, blocks_CS, live_CS = rows
        C = blocks_CS.shape[0]
        k_CKH, v_CKH = (x.at[blocks_CS].get(mode=_INSIDE).reshape(C, S * W, H) for x in (k_nWH, v_nWH))
        allowed_CSW = mask_nW[blocks_CS] & live_CS[:, :, None]
        bias_C1K = mask_bias(allowed_CSW.reshape(C, 1, S * W), q_LH.dtype)
        return None, attend(q_CWH, k_CKH, v_CKH, bias_C1K)

    q_QWH = q_LH[W : (Q + 1) * W].reshape(Q, W, H)
    _, middle = lax.scan(some_blocks, None, tuple(_in_chunks(x) for x in (q_QWH, blocks_QS, live_QS)))
    contexts = (global_GH[:W], middle.reshape(-1, H)[: Q * W], global_GH[W:])
    return jnp.concatenate(contexts) * mask_L[:, None]


_INSIDE = "promise_in_bounds"  # a pattern names no block outside; the check costs time


def _in_chunks(rows: Array) -> Array:
    """Fold the first axis, padded with zeros, into chunks of BLOCKS_AT_ONCE."""
    missing = -rows.shape[0] % BLOCKS_AT_ONCE
    padded = jnp.pad(rows, ((0, missing),) + ((0, 0),) * (rows.ndim - 1))
    return padded.reshape(-1, BLOCKS_AT_ONCE, *rows.shape[1:])


class BigBirdSelfAttention(nn.Module):
    """Queries, keys and values, and the attention between them."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.query = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias)
        self.key = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias)
        self.value = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias)
        self.dropout = nn.Dropout(self.config.attention_probs_dropout_prob)

    def __call__(self, x_BLD: Array, mask_BL: Array, lists: KeyLists | None, deterministic: bool) -> tuple[Array, Taps]:
        """Return the context [B, L, D] and the taps query, key, value [B, N, L, H] and context [B, L, N, H]."""
        q_BNLH, k_BNLH, v_BNLH = (self._split_heads(dense(x_BLD)) for dense in (self.query, self.key, self.value))
        if lists is None:
            dropout = None if deterministic else lambda weights: self.dropout(weights, deterministic=False)
            context_BLNH = full_attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, self.config.is_decoder, dropout)
        else:
            context_BLNH = block_sparse_attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, lists, self.config.block_size)
        taps = {"query": q_BNLH, "key": k_BNLH, "value": v_BNLH, "context": context_BLNH}
        return context_BLNH.reshape(x_BLD.shape), taps

    def _split_heads(self, x_BLD: Array) -> Array:
        B, L, _ = x_BLD.shape
        return x_BLD.reshape(B, L, self.config.num_attention_heads, self.config.head_dim).swapaxes(1, 2)


class BigBirdSelfOutput(nn.Module):
    """The output projection of the attention, its residual and LayerNorm."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.dense = nn.Dense(self.config.hidden_size)
        self.LayerNorm = nn.LayerNorm(epsilon=self.config.layer_norm_eps, use_fast_variance=False)
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)

    def __call__(self, context_BLD: Array, x_BLD: Array, deterministic: bool) -> Array:
        """Return LayerNorm(x + dropout(dense(context))), [B, L, D]."""
        return self.LayerNorm(x_BLD + self.dropout(self.dense(context_BLD), deterministic=deterministic))


class BigBirdAttention(nn.Module):
    """Self-attention and its output."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.self = BigBirdSelfAttention(self.config)
        self.output = BigBirdSelfOutput(self.config)

    def __call__(self, x_BLD: Array, mask_BL: Array, lists: KeyLists | None, deterministic: bool) -> tuple[Array, Taps]:
        """Return the sublayer's output [B, L, D] and its taps, attention_output among them."""
        context_BLD, taps = self.self(x_BLD, mask_BL, lists, deterministic)
        output_BLD = self.output(context_BLD, x_BLD, deterministic)
        return output_BLD, taps | {"attention_output": output_BLD}
