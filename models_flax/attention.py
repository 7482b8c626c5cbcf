"""Self-attention: full, and block-sparse as one gather of key blocks.

Legend: B batch, L length, D hidden, N heads, H head size, W block size, n blocks in the sequence, Q query blocks
with a key list of their own, S slots in such a list, K keys.

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
    q_BNLH: Array, k_BNKH: Array, v_BNKH: Array, allowed: Array, dropout: Callable[[Array], Array] | None = None
) -> Array:
    """Softmax attention of queries (already scaled) over the keys that ``allowed`` (bool, to [B, N, L, K]) admits.

    A row that admits no key weighs all keys alike, so that no NaN arises.
    """
    scores = q_BNLH @ k_BNKH.swapaxes(-1, -2)
    scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    if dropout:
        return dropout(jax.nn.softmax(scores, axis=-1)) @ v_BNKH
    # Normalising after the value product spares a pass over the weights.
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    return (weights @ v_BNKH) / weights.sum(axis=-1, keepdims=True)


def full_attention(
    q_BNLH: Array,
    k_BNLH: Array,
    v_BNLH: Array,
    mask_BL: Array,
    causal: bool,
    dropout: Callable[[Array], Array] | None = None,
) -> Array:
    """Every query attends to every key that is not padding (``causal``: and does not lie ahead); [B, N, L, H]."""
    allowed = mask_BL[:, None, None, :]
    if causal:
        L = mask_BL.shape[1]
        allowed = allowed & jnp.tril(jnp.ones((L, L), bool))
    return attend(q_BNLH, k_BNLH, v_BNLH, allowed, dropout)


def block_sparse_attention(
    q_BNLH: Array, k_BNLH: Array, v_BNLH: Array, mask_BL: Array, lists: KeyLists, block_size: int
) -> Array:
    """Each query block attends to its own list of key blocks, the global blocks to all keys; [B, N, L, H].

    The context of padded queries is 0. One softmax runs over the whole list: a block that stands in it twice
    counts twice. One query block at a time keeps memory linear in L and small.
    """
    B, N, length, H = q_BNLH.shape
    W = block_size
    q_BNLH, k_BNLH, v_BNLH = (_pad_to_blocks(x, W) for x in (q_BNLH, k_BNLH, v_BNLH))
    mask_BL = jnp.pad(mask_BL, ((0, 0), (0, q_BNLH.shape[2] - length)))
    n, (_, Q, S) = mask_BL.shape[1] // W, lists.key_blocks.shape
    heads_N1 = jnp.arange(N)[:, None]
    k_BNnWH, v_BNnWH = (x.reshape(B, N, n, W, H) for x in (k_BNLH, v_BNLH))
    mask_BnW = mask_BL.reshape(B, n, W)

    def one_block(_: None, row: tuple[Array, Array, Array]) -> tuple[None, Array]:
        q_BNWH, blocks_NS, live_NS = row
        k_BNKH, v_BNKH = (x[:, heads_N1, blocks_NS].reshape(B, N, S * W, H) for x in (k_BNnWH, v_BNnWH))
        allowed_BNSW = mask_BnW[:, blocks_NS] & live_NS[:, :, None]
        return None, attend(q_BNWH, k_BNKH, v_BNKH, allowed_BNSW.reshape(B, N, 1, S * W))

    q_QBNWH = jnp.moveaxis(q_BNLH.reshape(B, N, n, W, H)[:, :, 1 : Q + 1], 2, 0)
    rows = (q_QBNWH, lists.key_blocks.swapaxes(0, 1), lists.live.swapaxes(0, 1))
    _, middle_QBNWH = lax.scan(one_block, None, rows)
    contexts = [
        attend(q_BNLH[:, :, :W], k_BNLH, v_BNLH, mask_BL[:, None, None]),
        jnp.moveaxis(middle_QBNWH, 0, 2).reshape(B, N, Q * W, H),
    ]
    last_is_global = n - 2 == Q
    if last_is_global:
        contexts.append(attend(q_BNLH[:, :, -W:], k_BNLH, v_BNLH, mask_BL[:, None, None]))
    context_BNLH = jnp.concatenate(contexts, axis=2) * mask_BL[:, None, :, None]
    return context_BNLH[:, :, :length]


def _pad_to_blocks(x_BNLH: Array, block_size: int) -> Array:
    missing = -x_BNLH.shape[2] % block_size
    return jnp.pad(x_BNLH, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing else x_BNLH


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
        scaled_BNLH = q_BNLH / math.sqrt(self.config.head_dim)
        if lists is None:
            dropout = None if deterministic else lambda weights: self.dropout(weights, deterministic=False)
            context_BNLH = full_attention(scaled_BNLH, k_BNLH, v_BNLH, mask_BL, self.config.is_decoder, dropout)
        else:
            context_BNLH = block_sparse_attention(scaled_BNLH, k_BNLH, v_BNLH, mask_BL, lists, self.config.block_size)
        context_BLNH = context_BNLH.swapaxes(1, 2)
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
