"""Encoder and decoder: stacks of layers, and their LayerNorm behind (in postnorm: before) them.

Legend: B batch, L length of the texts, T tokens of the decoder, K keys, D hidden, N heads.
"""

from __future__ import annotations

import math
from typing import Any

from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_flax.attention.probabilities import dense_probabilities
from models_flax.bigbird.encoder import LayerStack
from models_flax.bigbird.inputs import Inputs
from models_flax.bigbird.layer import Taps
from models_flax.kinds import layer_kinds
from models_flax.pegasus.inputs import DecoderInputs
from models_flax.pegasus.layer import BigBirdPegasusDecoderLayer, BigBirdPegasusEncoderLayer, layer_norm
from models_flax.pegasus.outputs import BigBirdPegasusDecoderOutput, BigBirdPegasusEncoderOutput


def embedded(config: BigBirdPegasusConfig, words_BLD: Array, positions_BLD: Array) -> Array:
    """Return the sum of words, scaled where the configuration says so, and positions."""
    scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
    return words_BLD * scale + positions_BLD


def first_norm(
    config: BigBirdPegasusConfig, norm: Any, x_BLD: Array, dropout: Any, side: str, deterministic: bool
) -> tuple[Array, Taps]:
    """Return what the layers of a side read, and the taps: in postnorm the embeddings' LayerNorm."""
    dropped_BLD, taps = dropout(x_BLD, deterministic=deterministic), {f"{side}.embeddings": x_BLD}
    if config.norm_type == "prenorm":
        return dropped_BLD, taps
    normal_BLD = norm(dropped_BLD)
    return normal_BLD, taps | {f"{side}.embeddings_layer_norm": normal_BLD}


_KINDS = layer_kinds(BigBirdPegasusEncoderLayer)
_CheckpointedDecoderLayer: Any = nn.remat(BigBirdPegasusDecoderLayer, static_argnums=(8,))


class _BareDecoderLayer(BigBirdPegasusDecoderLayer):
    """A layer without its taps, which a compiled program would have to keep."""

    def __call__(self, *arguments: Any) -> tuple[Array, Taps, Any]:
        """Return the layer's output [B, T, D], no taps, and the cache."""
        output_BTD, _, past = super().__call__(*arguments)
        return output_BTD, {}, past


def _compiled_decoder_layer() -> Any:
    """Return the class of layers of which one program serves all."""
    return nn.jit(_BareDecoderLayer, static_argnums=(8,))


_CompiledDecoderLayer: Any = _compiled_decoder_layer()


class BigBirdPegasusEncoder(LayerStack):
    """The encoder, which attends by blocks."""

    def setup(self) -> None:
        config: Any = self.config
        self.layers = self.make(_KINDS)
        self.layernorm_embedding = layer_norm(config, self.dtype)
        self.dropout = nn.Dropout(config.dropout)

    def __call__(
        self,
        sum_BLD: Array,
        inputs: Inputs,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
        deterministic: bool = True,
    ) -> BigBirdPegasusEncoderOutput:
        """Encode the sum of embeddings [B, L, D]."""
        config: Any = self.config
        x_BLD, taps = first_norm(config, self.layernorm_embedding, sum_BLD, self.dropout, "encoder", deterministic)
        flags = (False, output_attentions, output_taps, deterministic, output_hidden_states)
        encoded = self.run(self.layers, x_BLD, inputs, *flags)
        last_BLD = encoded.hidden_states[-1]
        if config.norm_type == "prenorm":
            last_BLD = self.layernorm_embedding(last_BLD)
        taps |= {f"encoder.{name}": tap for name, tap in encoded.taps.items()} | {"encoder.output": last_BLD}
        return BigBirdPegasusEncoderOutput(
            last_hidden_state=last_BLD,
            hidden_states=(*encoded.hidden_states[:-1], last_BLD) if output_hidden_states else None,
            attentions=encoded.attentions or None,
            taps=taps if output_taps else None,
        )


class _DecoderLayers(nn.Module):
    """The layers under the names "0", "1", ..., as torch's ModuleList names them."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike
    gradient_checkpointing: bool

    @nn.compact
    def __call__(
        self, x_BTD: Array, inputs: DecoderInputs, deterministic: bool, keep_taps: bool
    ) -> tuple[list[Array], list[Taps], Any]:
        """Return the input and every layer's output, the taps of each layer, and the caches."""
        layer_class: Any = BigBirdPegasusDecoderLayer if keep_taps else _CompiledDecoderLayer
        if self.gradient_checkpointing:
            layer_class = _CheckpointedDecoderLayer
        states, all_taps, caches = [x_BTD], [], []
        for i in range(self.config.decoder_layers):
            layer = layer_class(self.config, self.dtype, name=str(i))
            x_BTD, taps, past = layer(
                states[-1],
                inputs.mask,
                inputs.encoder_states,
                inputs.encoder_mask,
                None if inputs.head_mask is None else inputs.head_mask[i],
                None if inputs.cross_head_mask is None else inputs.cross_head_mask[i],
                None if inputs.past is None else inputs.past[i],
                deterministic,
            )
            states.append(x_BTD)
            all_taps.append(taps)
            caches.append(past)
        return states, all_taps, tuple(caches) if inputs.past is not None else None


class BigBirdPegasusDecoder(nn.Module):
    """The decoder, which looks back at its own tokens and at the encoder's states."""

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        self.layers = _DecoderLayers(self.config, self.dtype, self.gradient_checkpointing)
        self.layernorm_embedding = layer_norm(self.config, self.dtype)
        self.dropout = nn.Dropout(self.config.dropout)

    def __call__(
        self,
        sum_BTD: Array,
        inputs: DecoderInputs,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
        deterministic: bool = True,
    ) -> BigBirdPegasusDecoderOutput:
        """Decode the sum of embeddings [B, T, D]; ``inputs`` are decoder_inputs_of's."""
        x_BTD, taps = first_norm(self.config, self.layernorm_embedding, sum_BTD, self.dropout, "decoder", deterministic)
        states, all_taps, caches = self.layers(x_BTD, inputs, deterministic, output_attentions or output_taps)
        last_BTD = states[-1]
        if self.config.norm_type == "prenorm":
            last_BTD = self.layernorm_embedding(last_BTD)
        named = {f"decoder.layer.{i}.{name}": tap for i, own in enumerate(all_taps) for name, tap in own.items()}
        crossed = output_attentions and inputs.encoder_mask is not None
        return BigBirdPegasusDecoderOutput(
            last_hidden_state=last_BTD,
            past_key_values=caches,
            hidden_states=(*states[:-1], last_BTD) if output_hidden_states else None,
            attentions=self._attentions(all_taps, "self_", inputs.mask, inputs.head_mask)
            if output_attentions
            else None,
            cross_attentions=self._attentions(all_taps, "cross_", inputs.encoder_mask, inputs.cross_head_mask)
            if crossed
            else None,
            taps=taps | named | {"decoder.output": last_BTD} if output_taps else None,
        )

    def _attentions(self, all_taps: Any, prefix: str, mask_BK: Any, head_mask: Array | None) -> tuple[Array, ...]:
        """The probabilities [B, N, T, K] of every layer's self-attention ("self_"), or cross-attention ("cross_")."""
        found = []
        for i, taps in enumerate(all_taps):
            query, key, causal = taps[f"{prefix}query"], taps[f"{prefix}key"], prefix == "self_"
            weights = dense_probabilities(query, key, mask_BK, None, self.config.block_size, causal)
            found.append(weights if head_mask is None else weights * head_mask[i][:, None, None])
        return tuple(found)
