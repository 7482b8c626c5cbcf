"""The loss of a batch: as transformers takes it, or as the original does.

The original's mean over masked words has 1e-5 added to its denominator, and is one for each replica; the other losses
are the same.

Legend: B batch, L length, M masked positions a text, R replicas, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models_torch.training.batches import Batch, MaskedWords, masked_words, token_labels

_ADDED = 1e-5


def batch_loss(model: Any, batch: Batch, style: str, replicas: int) -> Tensor:
    """Return the loss of a sorted batch; raises ValueError without labels, and where replicas do not divide B."""
    if style == "original" and (batch.masked is not None or "labels" in batch.labels) and predicts_words(model):
        return _original(model, batch, replicas)
    if replicas > 1:
        return torch.stack([batch_loss(model, part, style, 1) for part in _parts(batch, replicas)]).mean()
    labels = dict(batch.labels)
    if batch.masked is not None:
        labels["labels"] = token_labels(batch.masked, batch.inputs["input_ids"].shape[1])
    loss = model(**batch.inputs, **labels).loss
    if loss is None:
        raise ValueError(f"the batch has no labels for {model.head}: it holds {', '.join((*batch.inputs, *labels))}")
    return loss


def predicts_words(model: Any) -> bool:
    """Whether a model's loss is the mean over masked words that the original has a form of its own for."""
    return any(term.function == "masked_lm_loss" for term in model.config.family.heads[model.head].losses)


def _original(model: Any, batch: Batch, replicas: int) -> Tensor:
    """Masked words, and the next sentence where it has labels; scores are computed at the masked positions alone."""
    masked = batch.masked if batch.masked is not None else masked_words(batch.labels["labels"])
    scores = list(model.scores_at(masked.positions, **batch.inputs).values())
    loss = _masked_loss(scores[0], masked, replicas)
    if (label_B := batch.labels.get("next_sentence_label")) is not None and len(scores) > 1:
        loss = loss + functional.cross_entropy(scores[1], label_B.long())
    return loss


def _masked_loss(logits_BMV: Tensor, masked: MaskedWords, replicas: int) -> Tensor:
    _check_divides(len(logits_BMV), replicas)
    losses = functional.cross_entropy(logits_BMV.flatten(0, 1), masked.ids.flatten(), reduction="none")
    weights_R = masked.weights.reshape(replicas, -1)
    sums_R = (losses.reshape(replicas, -1) * weights_R).sum(dim=1)
    return (sums_R / (weights_R.sum(dim=1) + _ADDED)).mean()


def _parts(batch: Batch, replicas: int) -> list[Batch]:
    """The texts of each replica."""
    _check_divides(len(batch.inputs["input_ids"]), replicas)
    inputs, labels = (
        [{name: x.chunk(replicas)[i] for name, x in given.items()} for i in range(replicas)]
        for given in (batch.inputs, batch.labels)
    )
    return [Batch(*part, None) for part in zip(inputs, labels, strict=True)]


def _check_divides(texts: int, replicas: int) -> None:
    if texts % replicas:
        raise ValueError(f"the batch holds {texts} texts, which replicas={replicas} does not divide")
