"""What the models return: transformers' field names, and the taps (named intermediates) where asked for.

Legend: B batch, L length, K keys, D hidden, N heads, H head size, V vocabulary, C labels or choices.

hidden_states: the embeddings and every layer's output, each [B, L, D]. attentions, cross_attentions: one [B, N, L, K]
a layer. past_key_values: one LayerCache a layer. loss: a scalar, where labels were given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigbird_port.models.output import RebuiltOutput
from models_torch.bigbird.cache import LayerCache
from models_torch.bigbird.layer import Taps

Tensors = tuple[Tensor, ...]


_GIVEN: Any = None  # of a field that every output of its kind has


@dataclass
class BigBirdModelOutput(RebuiltOutput):
    """last_hidden_state [B, L, D], pooler_output [B, D]."""

    last_hidden_state: Tensor = _GIVEN
    pooler_output: Tensor | None = None
    past_key_values: tuple[LayerCache, ...] | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass
class BigBirdForPreTrainingOutput(RebuiltOutput):
    """prediction_logits [B, L, V] and seq_relationship_logits [B, 2] (next sentence: 0 is next, 1 is random)."""

    loss: Tensor | None = None
    prediction_logits: Tensor = _GIVEN
    seq_relationship_logits: Tensor = _GIVEN
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass
class BigBirdHeadOutput(RebuiltOutput):
    """logits: [B, L, V] of language models, [B, C] of classification and choice, [B, L, C] of tokens."""

    loss: Tensor | None = None
    logits: Tensor = _GIVEN
    past_key_values: tuple[LayerCache, ...] | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None
    taps: Taps | None = None


@dataclass
class BigBirdForQuestionAnsweringOutput(RebuiltOutput):
    """start_logits and end_logits [B, L]; pooler_output [B, D] where the model has a pooler."""

    loss: Tensor | None = None
    start_logits: Tensor = _GIVEN
    end_logits: Tensor = _GIVEN
    pooler_output: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    taps: Taps | None = None


# so that what walks through nested values (FSDP, torch.func, torch.export) finds the tensors in an output
for _output in (
    BigBirdModelOutput,
    BigBirdForPreTrainingOutput,
    BigBirdHeadOutput,
    BigBirdForQuestionAnsweringOutput,
):
    torch.export.register_dataclass(_output)
