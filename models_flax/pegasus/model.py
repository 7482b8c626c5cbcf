"""The base model, a linen module: an encoder that attends by blocks, and a decoder.

``output_taps`` returns named intermediates.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden, N heads.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_flax.bigbird.inputs import Arrays, complete_inputs
from models_flax.embed import Embed
from models_flax.pegasus.cache import DecoderCache
from models_flax.pegasus.inputs import DecoderArrays, decoder_inputs_of
from models_flax.pegasus.losses import behind_start
from models_flax.pegasus.outputs import (
    BigBirdPegasusDecoderOutput,
    BigBirdPegasusEncoderOutput,
    BigBirdPegasusModelOutput,
)
from models_flax.pegasus.stacks import BigBirdPegasusDecoder, BigBirdPegasusEncoder, embedded

Past = tuple[DecoderCache, ...]


class FlaxBigBirdPegasusModule(nn.Module):
    """Encoder and decoder with one table of words and one of positions.

    dtype, gradient_checkpointing, skip_padding: FlaxBigBirdModule's.
    """

    config: BigBirdPegasusConfig
    dtype: DTypeLike = jnp.float32
    gradient_checkpointing: bool = False
    skip_padding: bool = True

    def setup(self) -> None:
        self.shared = Embed(self.config.vocab_size, self.config.d_model, dtype=self.dtype)
        self.embed_positions = Embed(self.config.max_position_embeddings, self.config.d_model, dtype=self.dtype)
        self.encoder = BigBirdPegasusEncoder(self.config, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.decoder = BigBirdPegasusDecoder(self.config, self.dtype, self.gradient_checkpointing)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        decoder_input_ids: Array | None = None,
        decoder_attention_mask: Array | None = None,
        head_mask: Array | None = None,
        decoder_head_mask: Array | None = None,
        cross_attn_head_mask: Array | None = None,
        encoder_outputs: Any = None,
        past_key_values: Past | None = None,
        inputs_embeds: Array | None = None,
        decoder_inputs_embeds: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
    ) -> BigBirdPegasusModelOutput:
        """Encode ids [B, L] (or inputs_embeds [B, L, D]); decode decoder_input_ids [B, T] (or decoder_inputs_embeds).

        attention_mask [B, L]: 1 for tokens, 0 for padding; None takes what differs from pad_token_id, as the original
        (with inputs_embeds or encoder_outputs alone: every token). decoder_input_ids: None is input_ids, behind the
        start id. decoder_attention_mask [B, T], with a cache [B, its places]: None is every token; the decoder looks
        back only.
        head_mask [N] or [encoder_layers, N], decoder_head_mask, cross_attn_head_mask [N] or [decoder_layers, N]:
        factors of the heads. encoder_outputs: what ``encode`` returned, or a tuple that begins with its hidden states.
        past_key_values: init_cache's, or what an earlier call returned. deterministic: without dropout. Raises
        ValueError naming the argument that does not fit.
        """
        asked = (deterministic, output_attentions, output_hidden_states, output_taps)
        if encoder_outputs is None:
            encoder_outputs = self.encode(input_ids, attention_mask, head_mask, *asked, inputs_embeds)
        encoded = _encoder_output(encoder_outputs)
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            if input_ids is None:
                raise ValueError("decoder_input_ids was not given, and no input_ids to take in their place: give them")
            decoder_input_ids = behind_start(input_ids, self.config)
        mask = attention_mask
        if mask is None and input_ids is not None:
            mask = input_ids != self.config.pad_token_id
        masks = decoder_attention_mask, decoder_head_mask, cross_attn_head_mask
        states = encoded.last_hidden_state
        decoded = self.decode(decoder_input_ids, states, mask, *masks, past_key_values, *asked, decoder_inputs_embeds)
        assert decoded.last_hidden_state is not None
        return BigBirdPegasusModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
            taps=(encoded.taps or {}) | (decoded.taps or {}) if output_taps else None,
        )

    def encode(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        head_mask: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
        inputs_embeds: Array | None = None,
    ) -> BigBirdPegasusEncoderOutput:
        """Run the encoder alone; the arguments are the call's."""
        ids = DecoderArrays(input_ids, inputs_embeds).tokens(self.config)
        inputs = complete_inputs(self.config, Arrays(ids, attention_mask, head_mask=head_mask))
        words_BLD = self.shared(ids) if inputs_embeds is None else inputs_embeds.astype(self.dtype)
        sum_BLD = embedded(self.config, words_BLD, self.embed_positions(inputs.position_ids))
        return self.encoder(sum_BLD, inputs, output_attentions, output_hidden_states, output_taps, deterministic)

    def decode(
        self,
        ids_BT: Array | None,
        states_BLD: Array | None,
        encoder_mask_BL: Array | None = None,
        mask: Array | None = None,
        head_mask: Array | None = None,
        cross_head_mask: Array | None = None,
        past: Past | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
        embeds_BTD: Array | None = None,
    ) -> BigBirdPegasusDecoderOutput:
        """Run the decoder alone on ids [B, T] and the encoder's states; the arguments are the call's."""
        given = DecoderArrays(ids_BT, embeds_BTD, mask, states_BLD, encoder_mask_BL, head_mask, cross_head_mask, past)
        asked = (output_attentions, output_hidden_states, output_taps, deterministic)
        return run_decoder(self.decoder, self.shared, self.embed_positions, given, asked, "decoder_")

    def logits(self, x_BTD: Array) -> Array:
        """Return logits [B, T, V]: the output layer is the table of words, not scaled."""
        return self.shared.attend(x_BTD)


def run_decoder(
    decoder: Any, words: Any, positions: Any, given: DecoderArrays, asked: tuple[bool, ...], prefix: str
) -> BigBirdPegasusDecoderOutput:
    """Check what a decoder is given, embed it and run the decoder; words, positions: the tables."""
    inputs = decoder_inputs_of(decoder.config, given, prefix)
    words_BTD = words(given.ids) if given.embeds is None else given.embeds.astype(words.dtype)
    sum_BTD = embedded(decoder.config, words_BTD, positions(inputs.positions)[None])
    output: BigBirdPegasusDecoderOutput = decoder(sum_BTD, inputs, *asked)
    return output


def _encoder_output(given: Any) -> BigBirdPegasusEncoderOutput:
    """The encoder's output, given as such or as a tuple."""
    if isinstance(given, BigBirdPegasusEncoderOutput):
        return given
    states = tuple(given) if isinstance(given, (tuple, list)) else tuple(given.to_tuple())
    if not 1 <= len(states) <= 3 or not hasattr(states[0], "shape"):
        raise ValueError("encoder_outputs: expected what encode returned, or a tuple of its hidden states")
    names = ("last_hidden_state", "hidden_states", "attentions")
    return BigBirdPegasusEncoderOutput(**dict(zip(names, states, strict=False)))
