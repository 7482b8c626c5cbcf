"""Encoder and decoder: stacks of layers, their embeddings before and their LayerNorm behind (in postnorm: before) them.

Legend: B batch, L length of the texts, T tokens of the decoder, K keys, D hidden, N heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_torch.attention.probabilities import dense_probabilities
from models_torch.bigbird.encoder import LayerStack
from models_torch.bigbird.inputs import Arrays, complete_inputs
from models_torch.bigbird.layer import Taps
from models_torch.pegasus.inputs import DecoderInputs
from models_torch.pegasus.layer import BigBirdPegasusDecoderLayer, BigBirdPegasusEncoderLayer, layer_norm
from models_torch.pegasus.outputs import BigBirdPegasusDecoderOutput, BigBirdPegasusEncoderOutput


def embedded(config: BigBirdPegasusConfig, words_BLD: Tensor, positions_BLD: Tensor) -> Tensor:
    """Return the sum of words, scaled where the configuration says so, and positions."""
    scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
    return words_BLD * scale + positions_BLD


def first_norm(
    config: BigBirdPegasusConfig, norm: nn.Module, x_BLD: Tensor, dropout: nn.Module, side: str
) -> tuple[Tensor, Taps]:
    """Return what the layers of a side read, and the taps: in postnorm the embeddings' LayerNorm."""
    dropped_BLD, taps = dropout(x_BLD), {f"{side}.embeddings": x_BLD}
    if config.norm_type == "prenorm":
        return dropped_BLD, taps
    normal_BLD = norm(dropped_BLD)
    return normal_BLD, taps | {f"{side}.embeddings_layer_norm": normal_BLD}


class BigBirdPegasusEncoder(LayerStack):
    """The encoder, which attends by blocks; tokens and positions: the tables that it shares with the decoder."""

    def __init__(self, config: BigBirdPegasusConfig, tokens: nn.Embedding, positions: nn.Embedding) -> None:
        super().__init__(config)
        self.config: Any = config
        self.embed_tokens, self.embed_positions = tokens, positions
        self.layers = nn.ModuleList(BigBirdPegasusEncoderLayer(config) for _ in range(config.encoder_layers))
        self.layernorm_embedding = layer_norm(config)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        """The layers."""
        return self.layers

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdPegasusEncoderOutput:
        """Encode ids [B, L] or word embeddings [B, L, D]; the arguments are BigBirdPegasusModel's."""
        given = Arrays(input_ids, attention_mask, head_mask=head_mask, inputs_embeds=inputs_embeds)
        inputs = complete_inputs(self.config, given)
        words_BLD = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        sum_BLD = embedded(self.config, words_BLD, self.embed_positions(inputs.position_ids))
        x_BLD, taps = first_norm(self.config, self.layernorm_embedding, sum_BLD, self.dropout, "encoder")
        flags = (False, output_attentions, output_taps, generator, output_hidden_states)
        encoded = super().forward(x_BLD, inputs, *flags)
        last_BLD = encoded.hidden_states[-1]
        if self.config.norm_type == "prenorm":
            last_BLD = self.layernorm_embedding(last_BLD)
        taps |= {f"encoder.{name}": tap for name, tap in encoded.taps.items()} | {"encoder.output": last_BLD}
        return BigBirdPegasusEncoderOutput(
            last_hidden_state=last_BLD,
            hidden_states=(*encoded.hidden_states[:-1], last_BLD) if output_hidden_states else None,
            attentions=encoded.attentions or None,
            taps=taps if output_taps else None,
        )


class BigBirdPegasusDecoder(nn.Module):
    """The decoder, which looks back at its own tokens and at the encoder's states.

    encoder: whose layers, in a coupled model, are its own.
    """

    def __init__(
        self,
        config: BigBirdPegasusConfig,
        tokens: nn.Embedding,
        positions: nn.Embedding,
        encoder: BigBirdPegasusEncoder | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.checkpoint_options: dict[str, Any] = {}
        self.embed_tokens, self.embed_positions = tokens, positions
        coupled = encoder if config.couple_encoder_decoder else None
        own: Any = [None] * config.decoder_layers if coupled is None else coupled.layers
        self.layers = nn.ModuleList(BigBirdPegasusDecoderLayer(config, own[i]) for i in range(config.decoder_layers))
        self.layernorm_embedding = layer_norm(config) if coupled is None else coupled.layernorm_embedding
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        ids_BT: Tensor | None,
        inputs: DecoderInputs,
        embeds_BTD: Tensor | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
    ) -> BigBirdPegasusDecoderOutput:
        """Decode ids [B, T], or word embeddings [B, T, D]; ``inputs`` are decoder_inputs_of's."""
        words_BTD = self.embed_tokens(ids_BT) if embeds_BTD is None else embeds_BTD
        sum_BTD = embedded(self.config, words_BTD, self.embed_positions(inputs.positions)[None])
        x_BTD, taps = first_norm(self.config, self.layernorm_embedding, sum_BTD, self.dropout, "decoder")
        states, caches, attentions, cross_attentions = [x_BTD], [], [], []
        for i, layer in enumerate(self.layers):
            x_BTD, own, past = self._run(layer, self._arguments(x_BTD, inputs, i, use_cache))
            states.append(x_BTD)
            if use_cache:
                caches.append(past)
            if output_attentions:
                attentions.append(self._attentions(own, "self_", inputs.mask, inputs.head_mask, i))
            if output_attentions and inputs.encoder_mask is not None:
                cross_attentions.append(self._attentions(own, "cross_", inputs.encoder_mask, inputs.cross_head_mask, i))
            if output_taps:
                taps |= {f"decoder.layer.{i}.{name}": tap for name, tap in own.items()}
        if self.config.norm_type == "prenorm":
            x_BTD = self.layernorm_embedding(x_BTD)
        return BigBirdPegasusDecoderOutput(
            last_hidden_state=x_BTD,
            past_key_values=tuple(caches) or None,
            hidden_states=(*states[:-1], x_BTD) if output_hidden_states else None,
            attentions=tuple(attentions) or None,
            cross_attentions=tuple(cross_attentions) or None,
            taps=taps | {"decoder.output": x_BTD} if output_taps else None,
        )

    def _arguments(self, x_BTD: Tensor, inputs: DecoderInputs, i: int, use_cache: bool) -> tuple[Any, ...]:
        """What layer i is called with."""
        return (
            x_BTD,
            inputs.mask,
            inputs.encoder_states,
            inputs.encoder_mask,
            None if inputs.head_mask is None else inputs.head_mask[i],
            None if inputs.cross_head_mask is None else inputs.cross_head_mask[i],
            inputs.past[i] if inputs.past is not None and use_cache else None,
        )

    def _run(self, layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor, Taps, Any]:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *arguments, use_reentrant=False, **self.checkpoint_options)
        return layer(*arguments)

    def _attentions(self, taps: Taps, prefix: str, mask_BK: Tensor, head_mask: Tensor | None, i: int) -> Tensor:
        """The probabilities [B, N, T, K] of a layer's self-attention ("self_"), or cross-attention ("cross_")."""
        query, key, causal = taps[f"{prefix}query"], taps[f"{prefix}key"], prefix == "self_"
        found = dense_probabilities(query, key, mask_BK, None, self.config.block_size, causal)
        return found if head_mask is None else found * head_mask[i][:, None, None]
