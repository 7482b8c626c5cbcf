"""The loss of a batch: as transformers takes it, or as the original does.

The original's mean over masked words has 1e-5 added to its denominator, and is one for each replica; the other losses
are the same.

Legend: B batch, L length, M masked positions a text, R replicas, V vocabulary, D hidden.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from models_torch.training.batches import Batch, MaskedWords, masked_words, token_labels

_ADDED = 1e-5


def batch_loss(model: Any, batch: Batch, style: str, replicas: int) -> Tensor:
    """Return the loss of a sorted batch; raises ValueError without labels, and where replicas do not divide B."""
    if style == "original" and (batch.masked is not None or "labels" in batch.labels) and predicts_words(model):
        return _original(model, batch, replicas)
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
    base = model.base(**batch.inputs)
    last_BLD = base.last_hidden_state
    at_BMD = masked.positions[:, :, None].expand(-1, -1, last_BLD.shape[-1])
    scores, _ = model.score(last_BLD.gather(1, at_BMD), base.pooler_output)
    logits_BMV = next(iter(scores.values()))
    loss = _masked_loss(logits_BMV, masked, replicas)
    if (label_B := batch.labels.get("next_sentence_label")) is not None and len(scores) > 1:
        loss = loss + functional.cross_entropy(list(scores.values())[1], label_B.long())
    return loss


def _masked_loss(logits_BMV: Tensor, masked: MaskedWords, replicas: int) -> Tensor:
    B = len(logits_BMV)
    if B % replicas:
        raise ValueError(f"the batch holds {B} texts, which replicas={replicas} does not divide")
    losses = functional.cross_entropy(logits_BMV.flatten(0, 1), masked.ids.flatten(), reduction="none")
    weights_R = masked.weights.reshape(replicas, -1)
    sums_R = (losses.reshape(replicas, -1) * weights_R).sum(dim=1)
    return (sums_R / (weights_R.sum(dim=1) + _ADDED)).mean()
