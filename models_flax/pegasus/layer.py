"""The layers of encoder and decoder: attention, cross-attention in the decoder, and feed-forward.

In prenorm LayerNorm comes before each sublayer, in postnorm behind its residual.

Legend: B batch, L length, K keys, D hidden, N heads, H head size, I inner. A mask named BL is [B, K] where there are
more keys than queries, and [B, L, K] with a cache.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_flax.attention.block_sparse import Lists, block_sparse_attention
from models_flax.attention.full import full_attention
from models_flax.bigbird.activations import ACTIVATIONS
from models_flax.bigbird.layer import Taps
from models_flax.pegasus.cache import DecoderCache


class BigBirdPegasusSelfAttention(nn.Module):
    """The encoder's queries, keys and values."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.query = nn.Dense(self.config.d_model, use_bias=self.config.use_bias, dtype=self.dtype)
        self.key = nn.Dense(self.config.d_model, use_bias=self.config.use_bias, dtype=self.dtype)
        self.value = nn.Dense(self.config.d_model, use_bias=self.config.use_bias, dtype=self.dtype)

    def __call__(self, x_BLD: Array) -> tuple[Array, Array, Array]:
        """Return queries, keys and values, [B, L, D]."""
        return self.query(x_BLD), self.key(x_BLD), self.value(x_BLD)


class BigBirdPegasusEncoderAttention(nn.Module):
    """The encoder's attention, of which the decoder's is another spelling."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.self = BigBirdPegasusSelfAttention(self.config, self.dtype)
        self.output = nn.Dense(self.config.d_model, use_bias=self.config.use_bias, dtype=self.dtype)
        self.dropout = nn.Dropout(self.config.attention_dropout)

    def __call__(
        self, x_BLD: Array, mask_BL: Array, lists: Lists | None, head_mask_N: Array | None, deterministic: bool
    ) -> tuple[Array, Taps]:
        """Return what the sublayer adds [B, L, D], and query, key, value [B, N, L, H] and context [B, L, N, H]."""
        q_BNLH, k_BNLH, v_BNLH = (_split_heads(x, self.config) for x in self.self(x_BLD))
        if lists is None:
            dropout = None if deterministic else lambda weights: self.dropout(weights, deterministic=False)
            context_BLNH = full_attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, False, dropout)
        else:
            context_BLNH = block_sparse_attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, lists, self.config.block_size)
        context_BLNH = _masked_heads(context_BLNH, head_mask_N)
        taps = {"query": q_BNLH, "key": k_BNLH, "value": v_BNLH, "context": context_BLNH}
        return self.output(context_BLNH.reshape(x_BLD.shape)), taps


class BigBirdPegasusDecoderAttention(nn.Module):
    """The decoder's attention, to its own tokens or to the encoder's states."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.q_proj = nn.Dense(self.config.d_model, use_bias=self.config.use_bias, dtype=self.dtype)
        self.k_proj = nn.Dense(self.config.d_model, use_bias=self.config.use_bias, dtype=self.dtype)
        self.v_proj = nn.Dense(self.config.d_model, use_bias=self.config.use_bias, dtype=self.dtype)
        self.out_proj = nn.Dense(self.config.d_model, use_bias=self.config.use_bias, dtype=self.dtype)
        self.dropout = nn.Dropout(self.config.attention_dropout)

    def keys(self, x_BKD: Array) -> tuple[Array, Array]:
        """Return keys and values, [B, N, K, H]."""
        return _split_heads(self.k_proj(x_BKD), self.config), _split_heads(self.v_proj(x_BKD), self.config)

    def __call__(
        self,
        x_BLD: Array,
        keys: tuple[Array, Array],
        mask_BL: Array,
        causal: bool,
        head_mask_N: Array | None,
        deterministic: bool,
    ) -> tuple[Array, Array, Array]:
        """Return what the sublayer adds [B, L, D], the query [B, N, L, H] and the context [B, L, N, H]."""
        q_BNLH = _split_heads(self.q_proj(x_BLD), self.config)
        dropout = None if deterministic else lambda weights: self.dropout(weights, deterministic=False)
        context_BLNH = full_attention(q_BNLH, *keys, mask_BL, causal, dropout)
        context_BLNH = _masked_heads(context_BLNH, head_mask_N)
        return self.out_proj(context_BLNH.reshape(x_BLD.shape)), q_BNLH, context_BLNH


class BigBirdPegasusSublayers(nn.Module):
    """What layers of both sides have. inner: the inner size of the feed-forward sublayer."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32

    def common(self, inner: int) -> None:
        """Make the parts, in setup."""
        self.self_attn_layer_norm = layer_norm(self.config, self.dtype)
        self.fc1 = nn.Dense(inner, dtype=self.dtype)
        self.fc2 = nn.Dense(self.config.d_model, dtype=self.dtype)
        self.final_layer_norm = layer_norm(self.config, self.dtype)
        self.act = ACTIVATIONS[self.config.activation_function]
        self.dropout = nn.Dropout(self.config.dropout)
        self.activation_dropout = nn.Dropout(self.config.activation_dropout)

    def enter(self, norm: Any, x_BLD: Array) -> Array:
        """Return what a sublayer reads: x, in prenorm its LayerNorm."""
        return norm(x_BLD) if self.config.norm_type == "prenorm" else x_BLD

    def entered(self, name: str, normal_BLD: Array) -> Taps:
        """Return the tap of what ``enter`` returned, which there is in prenorm."""
        return {name: normal_BLD} if self.config.norm_type == "prenorm" else {}

    def leave(self, norm: Any, x_BLD: Array, added_BLD: Array, deterministic: bool) -> Array:
        """Return x + dropout(what a sublayer adds), in postnorm its LayerNorm."""
        sum_BLD = x_BLD + self.dropout(added_BLD, deterministic=deterministic)
        return sum_BLD if self.config.norm_type == "prenorm" else norm(sum_BLD)

    def feed_forward(self, x_BLD: Array, deterministic: bool) -> tuple[Array, Taps]:
        """Return the feed-forward sublayer's output [B, L, D] and its taps."""
        normal_BLD = self.enter(self.final_layer_norm, x_BLD)
        inner_BLI = self.act(self.fc1(normal_BLD))
        added_BLD = self.fc2(self.activation_dropout(inner_BLI, deterministic=deterministic))
        output_BLD = self.leave(self.final_layer_norm, x_BLD, added_BLD, deterministic)
        taps = {"intermediate": inner_BLI, "output_dense": added_BLD, "output": output_BLD}
        return output_BLD, self.entered("intermediate_layer_norm", normal_BLD) | taps


class BigBirdPegasusEncoderLayer(BigBirdPegasusSublayers):
    """Attention and feed-forward."""

    def setup(self) -> None:
        self.common(self.config.encoder_ffn_dim)
        self.self_attn = BigBirdPegasusEncoderAttention(self.config, self.dtype)

    def __call__(
        self,
        x_BLD: Array,
        mask_BL: Array,
        lists: Lists | None,
        head_mask_N: Array | None = None,
        past: None = None,
        encoder_BKD: None = None,
        encoder_mask_BK: None = None,
        deterministic: bool = True,
    ) -> tuple[Array, Taps]:
        """Return the layer's output [B, L, D] and its taps; past and encoder_...: a BigBirdLayer takes them."""
        normal_BLD = self.enter(self.self_attn_layer_norm, x_BLD)
        added_BLD, taps = self.self_attn(normal_BLD, mask_BL, lists, head_mask_N, deterministic)
        attention_BLD = self.leave(self.self_attn_layer_norm, x_BLD, added_BLD, deterministic)
        output_BLD, fed_forward = self.feed_forward(attention_BLD, deterministic)
        taps |= {"attention_dense": added_BLD, "attention_output": attention_BLD}
        return output_BLD, self.entered("self_layer_norm", normal_BLD) | taps | fed_forward


class BigBirdPegasusDecoderLayer(BigBirdPegasusSublayers):
    """Attention that looks back, cross-attention and feed-forward."""

    def setup(self) -> None:
        self.common(self.config.decoder_ffn_dim)
        self.self_attn = BigBirdPegasusDecoderAttention(self.config, self.dtype)
        self.encoder_attn = BigBirdPegasusDecoderAttention(self.config, self.dtype)
        self.encoder_attn_layer_norm = layer_norm(self.config, self.dtype)

    def __call__(
        self,
        x_BLD: Array,
        mask_BL: Array,
        encoder_BKD: Array | None,
        encoder_mask_BK: Array | None,
        head_mask_N: Array | None = None,
        cross_head_mask_N: Array | None = None,
        past: DecoderCache | None = None,
        deterministic: bool = True,
    ) -> tuple[Array, Taps, DecoderCache | None]:
        """Return the layer's output [B, L, D], its taps, and ``past`` with what was computed."""
        if self.is_initializing() and encoder_BKD is None:
            encoder_BKD, encoder_mask_BK = x_BLD, jnp.ones(x_BLD.shape[:2], bool)  # linen makes what is called
        normal_BLD = self.enter(self.self_attn_layer_norm, x_BLD)
        keys = self.self_attn.keys(normal_BLD)
        if past is not None:
            past = past.written(*keys)
            keys = past.key, past.value
        added_BLD, query, context = self.self_attn(normal_BLD, keys, mask_BL, True, head_mask_N, deterministic)
        attention_BLD = self.leave(self.self_attn_layer_norm, x_BLD, added_BLD, deterministic)
        taps = self.entered("self_layer_norm", normal_BLD)
        taps |= {"self_query": query, "self_key": keys[0], "self_value": keys[1], "self_context": context}
        taps |= {"self_dense": added_BLD, "self_output": attention_BLD}
        if encoder_BKD is not None and encoder_mask_BK is not None:
            attention_BLD, cross_taps, past = self._cross(
                attention_BLD, encoder_BKD, encoder_mask_BK, cross_head_mask_N, past, deterministic
            )
            taps |= cross_taps
        output_BLD, fed_forward = self.feed_forward(attention_BLD, deterministic)
        return output_BLD, taps | fed_forward, past

    def _cross(
        self,
        x_BLD: Array,
        encoder_BKD: Array,
        mask_BK: Array,
        head_mask_N: Array | None,
        past: DecoderCache | None,
        deterministic: bool,
    ) -> tuple[Array, Taps, DecoderCache | None]:
        normal_BLD = self.enter(self.encoder_attn_layer_norm, x_BLD)
        if past is not None and past.cross_key is not None and past.cross_value is not None:
            keys = past.cross_key, past.cross_value
        else:
            keys = self.encoder_attn.keys(encoder_BKD)
            past = past and past._replace(cross_key=keys[0], cross_value=keys[1])
        added_BLD, query, context = self.encoder_attn(normal_BLD, keys, mask_BK, False, head_mask_N, deterministic)
        output_BLD = self.leave(self.encoder_attn_layer_norm, x_BLD, added_BLD, deterministic)
        taps = self.entered("cross_layer_norm", normal_BLD)
        taps |= {"cross_query": query, "cross_key": keys[0], "cross_value": keys[1], "cross_context": context}
        taps |= {"cross_dense": added_BLD, "cross_output": output_BLD}
        return output_BLD, taps, past


def layer_norm(config: BigBirdPegasusConfig, dtype: DTypeLike) -> nn.LayerNorm:
    """Return a LayerNorm of the hidden states."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, dtype=dtype)


def _split_heads(x_BLD: Array, config: BigBirdPegasusConfig) -> Array:
    B, L, _ = x_BLD.shape
    return x_BLD.reshape(B, L, config.num_attention_heads, config.head_dim).swapaxes(1, 2)


def _masked_heads(context_BLNH: Array, head_mask_N: Array | None) -> Array:
    """The same as to multiply the probabilities of each head."""
    return context_BLNH if head_mask_N is None else context_BLNH * head_mask_N[:, None].astype(context_BLNH.dtype)
