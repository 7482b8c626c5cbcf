"""What the models return: transformers' field names, and the taps (named intermediates) where asked for.

Legend: B batch, L length, D hidden, V vocabulary, C labels or choices.
"""

from __future__ import annotations

from flax import struct
from jax import Array

from models_flax.attention import Taps


@struct.dataclass
class BigBirdModelOutput:
    """last_hidden_state [B, L, D], pooler_output [B, D], hidden_states: embeddings and every layer's output."""

    last_hidden_state: Array
    pooler_output: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    taps: Taps | None = None


@struct.dataclass
class BigBirdForPreTrainingOutput:
    """prediction_logits [B, L, V] and seq_relationship_logits [B, 2] (next sentence: 0 is next, 1 is random)."""

    prediction_logits: Array
    seq_relationship_logits: Array
    hidden_states: tuple[Array, ...] | None = None
    taps: Taps | None = None


@struct.dataclass
class BigBirdHeadOutput:
    """logits: [B, L, V] of language models, [B, C] of classification and choice, [B, L, C] of tokens."""

    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    taps: Taps | None = None


@struct.dataclass
class BigBirdForQuestionAnsweringOutput:
    """start_logits and end_logits [B, L]."""

    start_logits: Array
    end_logits: Array
    hidden_states: tuple[Array, ...] | None = None
    taps: Taps | None = None
