"""One layer of the encoder: attention, cross-attention in a decoder that has it, and feed-forward.

In postnorm LayerNorm comes behind each sublayer's residual, in prenorm before the sublayer.

Legend: B batch, L length, K keys, D hidden, N heads, H head size, I inner, M places of a buffer for keys. A
mask named BL is [B, K] where there are more keys than queries (a cache, cross-attention), and may be [B, L, K] for full
attention.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax import Array, lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_flax.attention.block_sparse import Lists, block_sparse_attention
from models_flax.attention.full import full_attention
from models_flax.bigbird.activations import ACTIVATIONS
from models_flax.bigbird.cache import LayerCache
from models_flax.sharding import placed

Taps = dict[str, Array]
Past = tuple[Array, Array, Array | int]  # keys, values, and how many of them there are


class BigBirdSelfAttention(nn.Module):
    """Queries, keys and values, and the attention between them."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.query = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias, dtype=self.dtype)
        self.key = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias, dtype=self.dtype)
        self.value = nn.Dense(self.config.hidden_size, use_bias=self.config.use_bias, dtype=self.dtype)
        self.LayerNorm = norm_where("prenorm", self.config, self.dtype)
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
        x_BLD = self.LayerNorm(x_BLD)
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
        self.LayerNorm = norm_where("postnorm", self.config, self.dtype)
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)

    def __call__(self, context_BLD: Array, x_BLD: Array, deterministic: bool) -> Array:
        """Return LayerNorm(x + dropout(dense(context))), [B, L, D]; in prenorm without LayerNorm."""
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


class BigBirdIntermediate(nn.Module):
    """The widening half of the feed-forward sublayer."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.LayerNorm = norm_where("prenorm", self.config, self.dtype)
        self.dense = nn.Dense(self.config.intermediate_size, dtype=self.dtype)
        self.act = ACTIVATIONS[self.config.hidden_act]

    def __call__(self, x_BLD: Array) -> Array:
        """Return act(dense(x)), [B, L, I]; in prenorm of LayerNorm(x)."""
        return self.act(self.dense(self.LayerNorm(x_BLD)))


class BigBirdOutput(nn.Module):
    """The narrowing half of the feed-forward sublayer, its residual and LayerNorm."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.dense = nn.Dense(self.config.hidden_size, dtype=self.dtype)
        self.LayerNorm = norm_where("postnorm", self.config, self.dtype)
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)

    def __call__(self, inner_BLI: Array, x_BLD: Array, deterministic: bool) -> Array:
        """Return LayerNorm(x + dropout(dense(inner))), [B, L, D]; in prenorm without LayerNorm."""
        return self.LayerNorm(x_BLD + self.dropout(self.dense(inner_BLI), deterministic=deterministic))


class BigBirdLayer(nn.Module):
    """Attention, cross-attention in a decoder that has it, and feed-forward."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.attention = BigBirdAttention(self.config, self.dtype)
        if self.config.add_cross_attention:
            self.crossattention = BigBirdAttention(self.config, self.dtype)
        self.intermediate = BigBirdIntermediate(self.config, self.dtype)
        self.output = BigBirdOutput(self.config, self.dtype)

    def __call__(
        self,
        x_BLD: Array,
        mask_BL: Array,
        lists: Lists | None,
        head_mask_N: Array | None = None,
        past: LayerCache | None = None,
        encoder_BKD: Array | None = None,
        encoder_mask_BK: Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Array, Taps]:
        """Return the layer's output [B, L, D] and its taps; those of cross-attention begin with cross_."""
        if self.is_initializing() and self.config.add_cross_attention and encoder_BKD is None:
            encoder_BKD, encoder_mask_BK = x_BLD, mask_BL  # linen makes the parameters of what is called
        own = None if past is None else (past.key, past.value, past.filled)
        attention_BLD, taps = self.attention(x_BLD, mask_BL, lists, head_mask_N, own, None, deterministic)
        if encoder_BKD is not None and encoder_mask_BK is not None:
            cross = None
            if past is not None and past.cross_key is not None and past.cross_value is not None:
                cross = (past.cross_key, past.cross_value, encoder_BKD.shape[1])
            attention_BLD, cross_taps = self.crossattention(
                attention_BLD, encoder_mask_BK, None, head_mask_N, cross, encoder_BKD, deterministic
            )
            taps |= {f"cross_{name}": tap for name, tap in cross_taps.items()}
        output_BLD, fed_forward = self.feed_forward(attention_BLD, deterministic)
        return output_BLD, taps | fed_forward

    def feed_forward(self, x_BLD: Array, deterministic: bool) -> tuple[Array, Taps]:
        """Return the feed-forward sublayer's output [B, L, D] and the taps intermediate and output."""
        inner_BLI = self.intermediate(x_BLD)
        output_BLD = placed(self.output(inner_BLI, x_BLD, deterministic))
        return output_BLD, {"intermediate": inner_BLI, "output": output_BLD}


def norm_where(norm_type: str, config: BigBirdConfig, dtype: DTypeLike) -> Any:
    """Return a LayerNorm of the hidden states where the model is of this norm_type, else what changes nothing."""
    if config.norm_type != norm_type:
        return _unchanged
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, dtype=dtype)


def _unchanged(x_BLD: Array) -> Array:
    return x_BLD
