"""What the models return: transformers' field names, and the taps (named intermediates) where asked for.

Legend: B batch, L length, K keys, D hidden, N heads, H head size, V vocabulary, C labels or choices.

hidden_states: the embeddings and every layer's output, each [B, L, D]. attentions, cross_attentions: one [B, N, L, K]
a layer. past_key_values: one LayerCache a layer. loss: a scalar, where labels were given.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from models_torch.attention import Taps
from models_torch.cache import LayerCache

Tensors = tuple[Tensor, ...]


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


@dataclass
class BigBirdModelOutput(_Output):
    """last_hidden_state [B, L, D], pooler_output [B, D]."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    past_key_values: tuple[LayerCache, ...] | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass(kw_only=True)
class BigBirdForPreTrainingOutput(_Output):
    """prediction_logits [B, L, V] and seq_relationship_logits [B, 2] (next sentence: 0 is next, 1 is random)."""

    loss: Tensor | None = None
    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass(kw_only=True)
class BigBirdHeadOutput(_Output):
    """logits: [B, L, V] of language models, [B, C] of classification and choice, [B, L, C] of tokens."""

    loss: Tensor | None = None
    logits: Tensor
    past_key_values: tuple[LayerCache, ...] | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass(kw_only=True)
class BigBirdForQuestionAnsweringOutput(_Output):
    """start_logits and end_logits [B, L]; pooler_output [B, D] where the model has a pooler."""

    loss: Tensor | None = None
    start_logits: Tensor
    end_logits: Tensor
    pooler_output: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    taps: Taps | None = None
