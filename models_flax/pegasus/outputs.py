"""What the models return: transformers' field names, and the taps (named intermediates) where asked for.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden, V vocabulary, C labels.

decoder_hidden_states, encoder_hidden_states: the embeddings and every layer's output, of which the last went through
the stack's last LayerNorm. decoder_attentions, cross_attentions, encoder_attentions: one [B, N, T or L, keys] a layer.
past_key_values: one DecoderCache a layer. loss: None (models_flax.pegasus.losses computes it from the
scores).
"""

from __future__ import annotations

from flax import struct
from jax import Array

from bigbird_port.models.output import ModelOutput
from models_flax.bigbird.layer import Taps
from models_flax.pegasus.cache import DecoderCache

Arrays = tuple[Array, ...]


@struct.dataclass(kw_only=True)
class BigBirdPegasusEncoderOutput(ModelOutput):
    """last_hidden_state [B, L, D]."""

    last_hidden_state: Array
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdPegasusModelOutput(ModelOutput):
    """last_hidden_state [B, T, D], encoder_last_hidden_state [B, L, D]."""

    last_hidden_state: Array
    past_key_values: tuple[DecoderCache, ...] | None = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdPegasusHeadOutput(ModelOutput):
    """logits: [B, T, V] of the language model, [B, C] of classification."""

    loss: Array | None = None
    logits: Array
    past_key_values: tuple[DecoderCache, ...] | None = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdPegasusQuestionAnsweringOutput(ModelOutput):
    """start_logits and end_logits [B, T]."""

    loss: Array | None = None
    start_logits: Array
    end_logits: Array
    past_key_values: tuple[DecoderCache, ...] | None = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdPegasusDecoderOutput(ModelOutput):
    """last_hidden_state [B, T, D], or logits [B, T, V], of the decoder alone."""

    loss: Array | None = None
    logits: Array | None = None
    last_hidden_state: Array | None = None
    past_key_values: tuple[DecoderCache, ...] | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    taps: Taps | None = None
