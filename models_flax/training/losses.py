"""The loss of a batch: as transformers takes it, or as the original does.

The original's mean over masked words has 1e-5 added to its denominator, and is one for each replica; the other losses
are the same.

Legend: B batch, L length, M masked positions a text, R replicas, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array
from jax import numpy as jnp

from models_flax import losses
from models_flax.pegasus.losses import decoder_inputs
from models_flax.training.batches import Batch, MaskedWords, masked_words, token_labels

Params = dict[str, Any]
_ADDED = 1e-5


def batch_loss(model: Any, params: Params, batch: Batch, style: str, replicas: int, dropout: Array) -> Array:
    """Return the loss of a sorted batch; raises ValueError without labels, and where replicas do not divide B.

    dropout: the generator of what is dropped.
    """
    if style == "original" and (batch.masked is not None or "labels" in batch.labels) and predicts_words(model):
        return _original(model, params, batch, replicas, dropout)
    if replicas > 1:
        keys = jax.random.split(dropout, replicas)
        pairs = zip(_parts(batch, replicas), keys, strict=True)
        return jnp.stack([batch_loss(model, params, part, style, 1, key) for part, key in pairs]).mean()
    labels = dict(batch.labels)
    if batch.masked is not None:
        labels["labels"] = token_labels(batch.masked, batch.inputs["input_ids"].shape[1])
    inputs = dict(batch.inputs)
    if model.config.family.heads[model.head].labels == "summaries" and "labels" in labels:  # torch's model does so
        inputs.setdefault("decoder_input_ids", decoder_inputs(labels["labels"], model.config))
    output = model(**inputs, params=params, train=True, dropout_rng=dropout, return_dict=True)
    given = {name: value for name, value in vars(output).items() if value is not None} | labels
    total = None
    for term in model.config.family.heads[model.head].losses:
        if all(argument in given for argument in term.arguments):
            settings = (getattr(model.config, name) for name in term.settings)
            value = getattr(losses, term.function)(*(given[argument] for argument in term.arguments), *settings)
            total = value if total is None else total + value
    if total is None:
        raise ValueError(f"the batch has no labels for {model.head}: it holds {', '.join((*batch.inputs, *labels))}")
    return total


def predicts_words(model: Any) -> bool:
    """Whether a model's loss is the mean over masked words that the original has a form of its own for."""
    return any(term.function == "masked_lm_loss" for term in model.config.family.heads[model.head].losses)


def _original(model: Any, params: Params, batch: Batch, replicas: int, dropout: Array) -> Array:
    """Masked words, and the next sentence where it has labels; scores are computed at the masked positions alone."""
    masked = batch.masked if batch.masked is not None else masked_words(batch.labels["labels"])
    given = {"rngs": {"dropout": dropout}, "method": "scores_at", "deterministic": False, **batch.inputs}
    scores = list(model.module.apply({"params": params}, masked.positions, **given).values())
    loss = _masked_loss(scores[0], masked, replicas)
    if (label_B := batch.labels.get("next_sentence_label")) is not None and len(scores) > 1:
        loss = loss + losses.next_sentence_loss(scores[1], label_B)
    return loss


def _masked_loss(logits_BMV: Array, masked: MaskedWords, replicas: int) -> Array:
    _check_divides(len(logits_BMV), replicas)
    picked_BM = jnp.take_along_axis(jax.nn.log_softmax(logits_BMV), masked.ids[:, :, None], axis=-1)[..., 0]
    weights_R = masked.weights.reshape(replicas, -1)
    sums_R = -(picked_BM.reshape(replicas, -1) * weights_R).sum(axis=1)
    return (sums_R / (weights_R.sum(axis=1) + _ADDED)).mean()


def _parts(batch: Batch, replicas: int) -> list[Batch]:
    """The texts of each replica."""
    _check_divides(len(batch.inputs["input_ids"]), replicas)
    inputs, labels = (
        [{name: jnp.split(x, replicas)[i] for name, x in given.items()} for i in range(replicas)]
        for given in (batch.inputs, batch.labels)
    )
    return [Batch(*part, None) for part in zip(inputs, labels, strict=True)]


def _check_divides(texts: int, replicas: int) -> None:
    if texts % replicas:
        raise ValueError(f"the batch holds {texts} texts, which replicas={replicas} does not divide")
