"""What the models return: transformers' field names, and the taps (named intermediates) where asked for.

Legend: B batch, L length, K keys, D hidden, N heads, H head size, V vocabulary, C labels or choices.

hidden_states: the embeddings and every layer's output, each [B, L, D]. attentions, cross_attentions: one [B, N, L, K]
a layer. past_key_values: one LayerCache a layer. loss: None (models_flax.losses computes it from the scores).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from flax import struct
from jax import Array

from models_flax.attention import Taps
from models_flax.cache import LayerCache

Arrays = tuple[Array, ...]


class _Output:
    """Access by position among what is there, and by name."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order, without the taps."""
        values = (getattr(self, field.name) for field in fields(self) if field.name != "taps")  # type: ignore[arg-type]
        return tuple(value for value in values if value is not None)

    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if getattr(self, key, None) is None:
            raise KeyError(key)
        return getattr(self, key)


@struct.dataclass(kw_only=True)
class BigBirdModelOutput(_Output):
    """last_hidden_state [B, L, D], pooler_output [B, D]."""

    last_hidden_state: Array
    pooler_output: Array | None = None
    past_key_values: tuple[LayerCache, ...] | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdForPreTrainingOutput(_Output):
    """prediction_logits [B, L, V] and seq_relationship_logits [B, 2] (next sentence: 0 is next, 1 is random)."""

    loss: Array | None = None
    prediction_logits: Array
    seq_relationship_logits: Array
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdHeadOutput(_Output):
    """logits: [B, L, V] of language models, [B, C] of classification and choice, [B, L, C] of tokens."""

    loss: Array | None = None
    logits: Array
    past_key_values: tuple[LayerCache, ...] | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    taps: Taps | None = None


@struct.dataclass(kw_only=True)
class BigBirdForQuestionAnsweringOutput(_Output):
    """start_logits and end_logits [B, L]; pooler_output [B, D] where the model has a pooler."""

    loss: Array | None = None
    start_logits: Array
    end_logits: Array
    pooler_output: Array | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    taps: Taps | None = None
