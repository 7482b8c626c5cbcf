"""What the models return: transformers' field names, and the taps (named intermediates) where asked for.

Legend: B batch, L length, D hidden, V vocabulary, C labels or choices.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models_torch.attention import Taps


@dataclass
class BigBirdModelOutput:
    """last_hidden_state [B, L, D], pooler_output [B, D], hidden_states: embeddings and every layer's output."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    taps: Taps | None = None


@dataclass
class BigBirdForPreTrainingOutput:
    """prediction_logits [B, L, V] and seq_relationship_logits [B, 2] (next sentence: 0 is next, 1 is random)."""

    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    taps: Taps | None = None


@dataclass
class BigBirdHeadOutput:
    """logits: [B, L, V] of language models, [B, C] of classification and choice, [B, L, C] of tokens."""

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    taps: Taps | None = None


@dataclass
class BigBirdForQuestionAnsweringOutput:
    """start_logits and end_logits [B, L]."""

    start_logits: Tensor
    end_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    taps: Taps | None = None
