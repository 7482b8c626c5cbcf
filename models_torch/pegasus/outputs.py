"""What the models return: transformers' field names, and the taps (named intermediates) where asked for.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden, V vocabulary, C labels.

decoder_hidden_states, encoder_hidden_states: the embeddings and every layer's output, of which the last went through
the stack's last LayerNorm. decoder_attentions, cross_attentions, encoder_attentions: one [B, N, T or L, keys] a layer.
past_key_values: one DecoderCache a layer. loss: a scalar, where labels were given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigbird_port.models.output import RebuiltOutput
from models_torch.bigbird.layer import Taps
from models_torch.pegasus.cache import DecoderCache

Tensors = tuple[Tensor, ...]
_GIVEN: Any = None  # of a field that every output of its kind has


@dataclass
class BigBirdPegasusEncoderOutput(RebuiltOutput):
    """last_hidden_state [B, L, D]."""

    last_hidden_state: Tensor = _GIVEN
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass
class BigBirdPegasusModelOutput(RebuiltOutput):
    """last_hidden_state [B, T, D], encoder_last_hidden_state [B, L, D]."""

    last_hidden_state: Tensor = _GIVEN
    past_key_values: tuple[DecoderCache, ...] | None = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass
class BigBirdPegasusHeadOutput(RebuiltOutput):
    """logits: [B, T, V] of the language model, [B, C] of classification."""

    loss: Tensor | None = None
    logits: Tensor = _GIVEN
    past_key_values: tuple[DecoderCache, ...] | None = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass
class BigBirdPegasusQuestionAnsweringOutput(RebuiltOutput):
    """start_logits and end_logits [B, T]."""

    loss: Tensor | None = None
    start_logits: Tensor = _GIVEN
    end_logits: Tensor = _GIVEN
    past_key_values: tuple[DecoderCache, ...] | None = None
    decoder_hidden_states: Tensors | None = None
    decoder_attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors | None = None
    encoder_attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass
class BigBirdPegasusDecoderOutput(RebuiltOutput):
    """last_hidden_state [B, T, D], or logits [B, T, V], of the decoder alone."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    past_key_values: tuple[DecoderCache, ...] | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    taps: Taps | None = None


# so that what walks through nested values (FSDP, torch.func, torch.export) finds the tensors in an output
for _output in (
    BigBirdPegasusEncoderOutput,
    BigBirdPegasusModelOutput,
    BigBirdPegasusHeadOutput,
    BigBirdPegasusQuestionAnsweringOutput,
    BigBirdPegasusDecoderOutput,
):
    torch.export.register_dataclass(_output)
