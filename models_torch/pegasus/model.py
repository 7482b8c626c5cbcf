"""The base model: an encoder that attends by blocks, and a decoder.

The arguments of every model are those of transformers, in its order; every model also takes, by keyword,
``output_taps`` (return named intermediates) and ``generator`` (of the random blocks in training, where random_blocks is
"resample").

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden, N heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_torch import host
from models_torch.pegasus.cache import DecoderCache, init_cache
from models_torch.pegasus.inputs import DecoderArrays, decoder_inputs_of
from models_torch.pegasus.losses import behind_start
from models_torch.pegasus.outputs import (
    BigBirdPegasusDecoderOutput,
    BigBirdPegasusEncoderOutput,
    BigBirdPegasusModelOutput,
)
from models_torch.pegasus.pretrained import BigBirdPegasusPreTrainedModel
from models_torch.pegasus.stacks import BigBirdPegasusDecoder, BigBirdPegasusEncoder

Past = tuple[DecoderCache, ...]


class BigBirdPegasusModel(BigBirdPegasusPreTrainedModel):
    """Encoder and decoder with one table of words and one of positions."""

    def __init__(self, config: BigBirdPegasusConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        positions = nn.Embedding(config.max_position_embeddings, config.d_model)
        self.encoder = BigBirdPegasusEncoder(self.config, self.shared, positions)
        self.decoder = BigBirdPegasusDecoder(self.config, self.shared, positions, self.encoder)
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdPegasusModelOutput | Any:
        """Encode ids [B, L] (or inputs_embeds [B, L, D]); decode decoder_input_ids [B, T] (or decoder_inputs_embeds).

        attention_mask [B, L]: 1 for tokens, 0 for padding; None takes what differs from pad_token_id, as the original
        (with inputs_embeds or encoder_outputs alone: every token). decoder_input_ids: None is input_ids, behind the
        start id. decoder_attention_mask [B, cached and new tokens]: None is every token; the decoder looks back only.
        head_mask [N] or [encoder_layers, N], decoder_head_mask, cross_attn_head_mask [N] or [decoder_layers, N]:
        factors of the heads. encoder_outputs: what the encoder returned, or a tuple that begins with its hidden states.
        past_key_values: init_cache's, or what an earlier call returned; use_cache: return it (None: as configured, but
        neither in training nor with taps). output_attentions, output_hidden_states, return_dict: None is as configured.
        Raises ValueError naming the argument that does not fit.
        """
        asked = self._asked(output_attentions, output_hidden_states)
        with host.together((decoder_input_ids,)):
            if encoder_outputs is None:
                encoder_outputs = self.encoder(
                    *(input_ids, attention_mask, head_mask, inputs_embeds, *asked),
                    output_taps=output_taps,
                    generator=generator,
                )
            encoded = _encoder_output(encoder_outputs)
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                if input_ids is None:
                    raise ValueError(
                        "decoder_input_ids was not given, and no input_ids to take in their place: give them"
                    )
                decoder_input_ids = behind_start(input_ids, self.config)
            decoded = self.decode(
                decoder_input_ids,
                encoded.last_hidden_state,
                self.encoder_mask(input_ids, attention_mask),
                *(
                    decoder_attention_mask,
                    decoder_head_mask,
                    cross_attn_head_mask,
                    past_key_values,
                    decoder_inputs_embeds,
                ),
                *(use_cache, *asked, output_taps),
            )
        output = BigBirdPegasusModelOutput(
            last_hidden_state=decoded.last_hidden_state,  # type: ignore[arg-type]  # it always is there
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
            taps=(encoded.taps or {}) | (decoded.taps or {}) if output_taps else None,
        )
        return self._returned(output, return_dict)

    def encoder_mask(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
        """Return which of the encoder's states cross-attention sees, [B, L]; None is all."""
        if attention_mask is not None or input_ids is None:
            return attention_mask
        return input_ids != self.config.pad_token_id

    def decode(
        self,
        ids_BT: Tensor | None,
        states_BLD: Tensor | None,
        encoder_mask_BL: Tensor | None = None,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        cross_head_mask: Tensor | None = None,
        past: Past | None = None,
        embeds_BTD: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
        prefix: str = "decoder_",
    ) -> BigBirdPegasusDecoderOutput:
        """Run the decoder alone on ids [B, T] and the encoder's states; the arguments are forward's."""
        return run_decoder(
            self.decoder,
            DecoderArrays(ids_BT, embeds_BTD, mask, states_BLD, encoder_mask_BL, head_mask, cross_head_mask, past),
            *(use_cache, output_attentions, output_hidden_states, output_taps, prefix),
        )

    def _asked(self, output_attentions: bool | None, output_hidden_states: bool | None) -> tuple[bool, bool]:
        asked = (
            (output_attentions, self.config.output_attentions),
            (output_hidden_states, self.config.output_hidden_states),
        )
        return tuple(bool(configured if given is None else given) for given, configured in asked)  # type: ignore[return-value]


def run_decoder(
    decoder: BigBirdPegasusDecoder,
    given: DecoderArrays,
    use_cache: bool | None,
    output_attentions: bool,
    output_hidden_states: bool,
    output_taps: bool,
    prefix: str,
) -> BigBirdPegasusDecoderOutput:
    """Check what a decoder is given, make a cache where one is wanted and none is there, and run it."""
    config = decoder.config
    inputs = decoder_inputs_of(config, given, prefix)
    if use_cache is None:
        use_cache = given.past is not None or (config.use_cache and not decoder.training and not output_taps)
    if use_cache and given.past is None:
        B, T = inputs.mask.shape
        table = decoder.embed_tokens.weight
        places = max(T, config.decoder_length)
        inputs = inputs._replace(past=init_cache(config, B, places, table.dtype, table.device))
    asked = (output_attentions, output_hidden_states, output_taps)
    return decoder(given.ids, inputs, given.embeds, use_cache, *asked)


def _encoder_output(given: Any) -> BigBirdPegasusEncoderOutput:
    """The encoder's output, given as such or as a tuple."""
    if isinstance(given, BigBirdPegasusEncoderOutput):
        return given
    states = tuple(given) if isinstance(given, (tuple, list)) else tuple(given.to_tuple())
    if not 1 <= len(states) <= 3 or not isinstance(states[0], Tensor):
        raise ValueError("encoder_outputs: expected what the encoder returned, or a tuple of its hidden states")
    return BigBirdPegasusEncoderOutput(*states)
