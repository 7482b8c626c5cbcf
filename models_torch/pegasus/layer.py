"""The layers of encoder and decoder: attention, cross-attention in the decoder, and feed-forward.

In prenorm LayerNorm comes before each sublayer, in postnorm behind its residual.

Legend: B batch, L length, K keys, D hidden, N heads, H head size, I inner. A mask named BL is [B, K] where there are
more keys than queries.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_torch.attention.block_sparse import block_sparse_attention
from models_torch.attention.full import full_attention
from models_torch.attention.lists import KeyLists
from models_torch.bigbird.activations import ACTIVATIONS
from models_torch.bigbird.layer import Taps
from models_torch.few_rows import linear
from models_torch.pegasus.cache import DecoderCache


class BigBirdPegasusSelfAttention(nn.Module):
    """The encoder's queries, keys and values."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.d_model, config.d_model, bias=config.use_bias)
        self.key = nn.Linear(config.d_model, config.d_model, bias=config.use_bias)
        self.value = nn.Linear(config.d_model, config.d_model, bias=config.use_bias)


class BigBirdPegasusEncoderAttention(nn.Module):
    """The encoder's attention, of which the decoder's is another spelling."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__()
        self.config = config
        self.self = BigBirdPegasusSelfAttention(config)
        self.output = nn.Linear(config.d_model, config.d_model, bias=config.use_bias)
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(
        self, x_BLD: Tensor, mask_BL: Tensor, lists: KeyLists | None, head_mask_N: Tensor | None = None
    ) -> tuple[Tensor, Taps]:
        """Return what the sublayer adds [B, L, D], and query, key, value [B, N, L, H] and context [B, L, N, H]."""
        dense = (self.self.query, self.self.key, self.self.value)
        q_BNLH, k_BNLH, v_BNLH = (_split_heads(layer(x_BLD), self.config) for layer in dense)
        if lists is None:
            context_BLNH = full_attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, False, self.dropout)
        else:
            context_BLNH = block_sparse_attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, lists, self.config.block_size)
        context_BLNH = _masked_heads(context_BLNH, head_mask_N)
        taps = {"query": q_BNLH, "key": k_BNLH, "value": v_BNLH, "context": context_BLNH}
        return self.output(context_BLNH.flatten(2)), taps


class BigBirdPegasusDecoderAttention(nn.Module):
    """The decoder's attention, to its own tokens or to the encoder's states.

    own: the encoder's attention whose weights it has, in a coupled model.
    """

    def __init__(self, config: BigBirdPegasusConfig, own: BigBirdPegasusEncoderAttention | None = None) -> None:
        super().__init__()
        self.config = config
        shared: Any = (None,) * 4 if own is None else (own.self.query, own.self.key, own.self.value, own.output)
        projections = [layer or nn.Linear(config.d_model, config.d_model, bias=config.use_bias) for layer in shared]
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = projections
        self.dropout = nn.Dropout(config.attention_dropout)

    def keys(self, x_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, [B, N, K, H]."""
        keys, values = linear(self.k_proj, x_BKD), linear(self.v_proj, x_BKD)
        return _split_heads(keys, self.config), _split_heads(values, self.config)

    def forward(
        self,
        x_BLD: Tensor,
        keys: tuple[Tensor, Tensor],
        mask_BL: Tensor,
        causal: bool,
        head_mask_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the sublayer adds [B, L, D], the query [B, N, L, H] and the context [B, L, N, H]."""
        q_BNLH = _split_heads(linear(self.q_proj, x_BLD), self.config)
        context_BLNH = full_attention(q_BNLH, *keys, mask_BL, causal, self.dropout)
        context_BLNH = _masked_heads(context_BLNH, head_mask_N)
        return linear(self.out_proj, context_BLNH.flatten(2)), q_BNLH, context_BLNH


class BigBirdPegasusSublayers(nn.Module):
    """What layers of both sides have. own: in a coupled model the layer whose weights it has. inner: its inner size."""

    def __init__(self, config: BigBirdPegasusConfig, inner: int, own: BigBirdPegasusSublayers | None = None) -> None:
        super().__init__()
        self.config = config
        self.self_attn_layer_norm: nn.Module = own.self_attn_layer_norm if own else layer_norm(config)
        self.fc1: nn.Module = own.fc1 if own else nn.Linear(config.d_model, inner)
        self.fc2: nn.Module = own.fc2 if own else nn.Linear(inner, config.d_model)
        self.final_layer_norm: nn.Module = own.final_layer_norm if own else layer_norm(config)
        self.act = ACTIVATIONS[config.activation_function]
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def enter(self, norm: nn.Module, x_BLD: Tensor) -> Tensor:
        """Return what a sublayer reads: x, in prenorm its LayerNorm."""
        return norm(x_BLD) if self.config.norm_type == "prenorm" else x_BLD

    def entered(self, name: str, normal_BLD: Tensor) -> Taps:
        """Return the tap of what ``enter`` returned, which there is in prenorm."""
        return {name: normal_BLD} if self.config.norm_type == "prenorm" else {}

    def leave(self, norm: nn.Module, x_BLD: Tensor, added_BLD: Tensor) -> Tensor:
        """Return x + dropout(what a sublayer adds), in postnorm its LayerNorm."""
        sum_BLD = x_BLD + self.dropout(added_BLD)
        return sum_BLD if self.config.norm_type == "prenorm" else norm(sum_BLD)

    def feed_forward(self, x_BLD: Tensor) -> tuple[Tensor, Taps]:
        """Return the feed-forward sublayer's output [B, L, D] and its taps."""
        normal_BLD = self.enter(self.final_layer_norm, x_BLD)
        inner_BLI = self.act(linear(self.fc1, normal_BLD))
        added_BLD = linear(self.fc2, self.activation_dropout(inner_BLI))
        output_BLD = self.leave(self.final_layer_norm, x_BLD, added_BLD)
        taps = {"intermediate": inner_BLI, "output_dense": added_BLD, "output": output_BLD}
        return output_BLD, self.entered("intermediate_layer_norm", normal_BLD) | taps


class BigBirdPegasusEncoderLayer(BigBirdPegasusSublayers):
    """Attention and feed-forward."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__(config, config.encoder_ffn_dim)
        self.self_attn = BigBirdPegasusEncoderAttention(config)

    def forward(
        self, x_BLD: Tensor, mask_BL: Tensor, lists: KeyLists | None, head_mask_N: Tensor | None = None, *unused: Any
    ) -> tuple[Tensor, Taps]:
        """Return the layer's output [B, L, D] and its taps; unused: what a BigBirdLayer takes beside these."""
        normal_BLD = self.enter(self.self_attn_layer_norm, x_BLD)
        added_BLD, taps = self.self_attn(normal_BLD, mask_BL, lists, head_mask_N)
        attention_BLD = self.leave(self.self_attn_layer_norm, x_BLD, added_BLD)
        output_BLD, fed_forward = self.feed_forward(attention_BLD)
        taps |= {"attention_dense": added_BLD, "attention_output": attention_BLD}
        return output_BLD, self.entered("self_layer_norm", normal_BLD) | taps | fed_forward


class BigBirdPegasusDecoderLayer(BigBirdPegasusSublayers):
    """Attention that looks back, cross-attention and feed-forward."""

    def __init__(self, config: BigBirdPegasusConfig, own: BigBirdPegasusEncoderLayer | None = None) -> None:
        super().__init__(config, config.decoder_ffn_dim, own)
        self.self_attn = BigBirdPegasusDecoderAttention(config, None if own is None else own.self_attn)
        self.encoder_attn = BigBirdPegasusDecoderAttention(config)
        self.encoder_attn_layer_norm = layer_norm(config)

    def forward(
        self,
        x_BLD: Tensor,
        mask_BL: Tensor,
        encoder_BKD: Tensor | None,
        encoder_mask_BK: Tensor | None,
        head_mask_N: Tensor | None = None,
        cross_head_mask_N: Tensor | None = None,
        past: DecoderCache | None = None,
    ) -> tuple[Tensor, Taps, DecoderCache | None]:
        """Return the layer's output [B, L, D], its taps, and ``past`` with what was computed."""
        normal_BLD = self.enter(self.self_attn_layer_norm, x_BLD)
        keys = self.self_attn.keys(normal_BLD)
        if past is not None:
            past = past.written(*keys)
            keys = past.key[:, :, : past.filled], past.value[:, :, : past.filled]
        added_BLD, query, context = self.self_attn(normal_BLD, keys, mask_BL, True, head_mask_N)
        attention_BLD = self.leave(self.self_attn_layer_norm, x_BLD, added_BLD)
        taps = self.entered("self_layer_norm", normal_BLD)
        taps |= {"self_query": query, "self_key": keys[0], "self_value": keys[1], "self_context": context}
        taps |= {"self_dense": added_BLD, "self_output": attention_BLD}
        if encoder_BKD is not None and encoder_mask_BK is not None:
            attention_BLD, cross_taps, past = self._cross(
                attention_BLD, encoder_BKD, encoder_mask_BK, cross_head_mask_N, past
            )
            taps |= cross_taps
        output_BLD, fed_forward = self.feed_forward(attention_BLD)
        return output_BLD, taps | fed_forward, past

    def _cross(
        self,
        x_BLD: Tensor,
        encoder_BKD: Tensor,
        mask_BK: Tensor,
        head_mask_N: Tensor | None,
        past: DecoderCache | None,
    ) -> tuple[Tensor, Taps, DecoderCache | None]:
        normal_BLD = self.enter(self.encoder_attn_layer_norm, x_BLD)
        if past is not None and past.cross_key is not None and past.cross_value is not None:
            keys = past.cross_key, past.cross_value
        else:
            keys = self.encoder_attn.keys(encoder_BKD)
            if past is not None:  # laid out once as every step reads them
                keys = keys[0].contiguous(), keys[1].contiguous()
                past = past._replace(cross_key=keys[0], cross_value=keys[1])
        added_BLD, query, context = self.encoder_attn(normal_BLD, keys, mask_BK, False, head_mask_N)
        output_BLD = self.leave(self.encoder_attn_layer_norm, x_BLD, added_BLD)
        taps = self.entered("cross_layer_norm", normal_BLD)
        taps |= {"cross_query": query, "cross_key": keys[0], "cross_value": keys[1], "cross_context": context}
        taps |= {"cross_dense": added_BLD, "cross_output": output_BLD}
        return output_BLD, taps, past


def layer_norm(config: BigBirdPegasusConfig) -> nn.LayerNorm:
    """Return a LayerNorm of the hidden states."""
    return nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)


def _split_heads(x_BLD: Tensor, config: BigBirdPegasusConfig) -> Tensor:
    return x_BLD.unflatten(-1, (-1, config.head_dim)).transpose(1, 2)


def _masked_heads(context_BLNH: Tensor, head_mask_N: Tensor | None) -> Tensor:
    """The same as to multiply the probabilities of each head."""
    return context_BLNH if head_mask_N is None else context_BLNH * head_mask_N[:, None].to(context_BLNH.dtype)
