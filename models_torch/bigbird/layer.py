"""One layer of the encoder: attention, cross-attention in a decoder that has it, and feed-forward.

In postnorm LayerNorm comes behind each sublayer's residual, in prenorm before the sublayer.

Legend: B batch, L length, K keys, D hidden, N heads, H head size, I inner. A mask named BL is [B, K] where there are
more keys than queries (a cache, cross-attention), and may be [B, L, K] for full attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_torch.attention.block_sparse import block_sparse_attention
from models_torch.attention.full import full_attention
from models_torch.attention.lists import KeyLists
from models_torch.bigbird.activations import ACTIVATIONS
from models_torch.bigbird.cache import LayerCache

Taps = dict[str, Tensor]


class BigBirdSelfAttention(nn.Module):
    """Queries, keys and values, and the attention between them."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.value = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.LayerNorm = norm_where("prenorm", config)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(
        self,
        x_BLD: Tensor,
        mask_BL: Tensor,
        lists: KeyLists | None,
        head_mask_N: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        source_BKD: Tensor | None = None,
    ) -> tuple[Tensor, Taps]:
        """Return the context [B, L, D] and the taps query, key, value [B, N, L, H] and context [B, L, N, H].

        past: earlier keys and values, [B, N, K, H]. source_BKD: what cross-attention attends to, unless ``past`` is it.
        """
        x_BLD = self.LayerNorm(x_BLD)
        q_BNLH = self._split_heads(self.query(x_BLD))
        if source_BKD is not None and past is not None:
            k_BNKH, v_BNKH = past
        else:
            keyed_BKD = x_BLD if source_BKD is None else source_BKD
            k_BNKH, v_BNKH = (self._split_heads(dense(keyed_BKD)) for dense in (self.key, self.value))
            if past is not None:
                k_BNKH, v_BNKH = torch.cat((past[0], k_BNKH), dim=2), torch.cat((past[1], v_BNKH), dim=2)
        if lists is None:
            causal = self.config.is_decoder and source_BKD is None
            context_BLNH = full_attention(q_BNLH, k_BNKH, v_BNKH, mask_BL, causal, self.dropout)
        else:
            context_BLNH = block_sparse_attention(q_BNLH, k_BNKH, v_BNKH, mask_BL, lists, self.config.block_size)
        if head_mask_N is not None:  # the same as to multiply the probabilities of the head
            context_BLNH = context_BLNH * head_mask_N[:, None].to(context_BLNH.dtype)
        taps = {"query": q_BNLH, "key": k_BNKH, "value": v_BNKH, "context": context_BLNH}
        return context_BLNH.flatten(2), taps

    def _split_heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)


class BigBirdSelfOutput(nn.Module):
    """The output projection of the attention, its residual and LayerNorm."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = norm_where("postnorm", config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, context_BLD: Tensor, x_BLD: Tensor) -> Tensor:
        """Return LayerNorm(x + dropout(dense(context))), [B, L, D]; in prenorm without LayerNorm."""
        return self.LayerNorm(x_BLD + self.dropout(self.dense(context_BLD)))


class BigBirdAttention(nn.Module):
    """Attention, to the text itself or to an encoder's states, and its output."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.self = BigBirdSelfAttention(config)
        self.output = BigBirdSelfOutput(config)

    def forward(
        self,
        x_BLD: Tensor,
        mask_BL: Tensor,
        lists: KeyLists | None,
        head_mask_N: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        source_BKD: Tensor | None = None,
    ) -> tuple[Tensor, Taps]:
        """Return the sublayer's output [B, L, D] and its taps, attention_output among them."""
        context_BLD, taps = self.self(x_BLD, mask_BL, lists, head_mask_N, past, source_BKD)
        output_BLD = self.output(context_BLD, x_BLD)
        return output_BLD, taps | {"attention_output": output_BLD}


class BigBirdIntermediate(nn.Module):
    """The widening half of the feed-forward sublayer."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.LayerNorm = norm_where("prenorm", config)
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return act(dense(x)), [B, L, I]; in prenorm of LayerNorm(x)."""
        return self.act(self.dense(self.LayerNorm(x_BLD)))


class BigBirdOutput(nn.Module):
    """The narrowing half of the feed-forward sublayer, its residual and LayerNorm."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = norm_where("postnorm", config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner_BLI: Tensor, x_BLD: Tensor) -> Tensor:
        """Return LayerNorm(x + dropout(dense(inner))), [B, L, D]; in prenorm without LayerNorm."""
        return self.LayerNorm(x_BLD + self.dropout(self.dense(inner_BLI)))


class BigBirdLayer(nn.Module):
    """Attention, cross-attention in a decoder that has it, and feed-forward."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.attention = BigBirdAttention(config)
        if config.add_cross_attention:
            self.crossattention = BigBirdAttention(config)
        self.intermediate = BigBirdIntermediate(config)
        self.output = BigBirdOutput(config)

    def forward(
        self,
        x_BLD: Tensor,
        mask_BL: Tensor,
        lists: KeyLists | None,
        head_mask_N: Tensor | None = None,
        past: LayerCache | None = None,
        encoder_BKD: Tensor | None = None,
        encoder_mask_BK: Tensor | None = None,
    ) -> tuple[Tensor, Taps]:
        """Return the layer's output [B, L, D] and its taps; those of cross-attention begin with cross_."""
        own = None if past is None else (past.key, past.value)
        attention_BLD, taps = self.attention(x_BLD, mask_BL, lists, head_mask_N, own)
        if encoder_BKD is not None and encoder_mask_BK is not None:
            cross = None
            if past is not None and past.cross_key is not None and past.cross_value is not None:
                cross = (past.cross_key, past.cross_value)
            attention_BLD, cross_taps = self.crossattention(
                attention_BLD, encoder_mask_BK, None, head_mask_N, cross, encoder_BKD
            )
            taps |= {f"cross_{name}": tap for name, tap in cross_taps.items()}
        inner_BLI = self.intermediate(attention_BLD)
        output_BLD = self.output(inner_BLI, attention_BLD)
        return output_BLD, taps | {"intermediate": inner_BLI, "output": output_BLD}


def norm_where(norm_type: str, config: BigBirdConfig) -> nn.Module:
    """Return a LayerNorm of the hidden states where the model is of this norm_type, else what changes nothing."""
    if config.norm_type != norm_type:
        return nn.Identity()
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
