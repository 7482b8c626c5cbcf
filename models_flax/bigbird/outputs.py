"""What the models return: transformers' field names, and the taps (named intermediates) where asked for.

Legend: B batch, L length, K keys, D hidden, N heads, H head size, V vocabulary, C labels or choices.

hidden_states: the embeddings and every layer's output, each [B, L, D]. attentions, cross_attentions: one [B, N, L, K]
a layer. past_key_values: one LayerCache a layer. loss: None (models_flax.bigbird.losses computes it from the scores).
"""

from __future__ import annotations

from flax import struct
from jax import Array

from bigbird_port.models.output import ModelOutput
from models_flax.bigbird.cache import LayerCache
from models_flax.bigbird.layer import Taps

Arrays = tuple[Array, ...]


@struct.dataclass(kw_only=True)
class BigBirdModelOutput(ModelOutput):
    """last_hidden_state [B, L, D], pooler_output [B, D]."""

    last_hidden_state: Array
    pooler_output: Array | None = None
    past_key_values: tuple[LayerCache, ...] | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdForPreTrainingOutput(ModelOutput):
    """prediction_logits [B, L, V] and seq_relationship_logits [B, 2] (next sentence: 0 is next, 1 is random)."""

    loss: Array | None = None
    prediction_logits: Array
    seq_relationship_logits: Array
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdHeadOutput(ModelOutput):
    """logits: [B, L, V] of language models, [B, C] of classification and choice, [B, L, C] of tokens."""

    loss: Array | None = None
    logits: Array
    past_key_values: tuple[LayerCache, ...] | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdForQuestionAnsweringOutput(ModelOutput):
    """start_logits and end_logits [B, L]; pooler_output [B, D] where the model has a pooler."""

    loss: Array | None = None
    start_logits: Array
    end_logits: Array
    pooler_output: Array | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    taps: Taps | None = None
