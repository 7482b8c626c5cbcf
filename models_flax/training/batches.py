"""Batches of either kind: the model's keywords, or the original's features.

Legend: B batch, L length, M masked positions a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax import Array
from jax import numpy as jnp

from models_flax.bigbird.inputs import IGNORED

_NAMES = {"segment_ids": "token_type_ids", "next_sentence_labels": "next_sentence_label"}
_LABELS = ("labels", "next_sentence_label", "start_positions", "end_positions")


class MaskedWords(NamedTuple):
    """The words that are predicted: positions [B, M], ids [B, M], weights [B, M]; 0 where there is none."""

    positions: Array
    ids: Array
    weights: Array


class Batch(NamedTuple):
    """A batch, sorted: what the model is called with, its labels, and the masked words where they are given so."""

    inputs: dict[str, Array]
    labels: dict[str, Array]
    masked: MaskedWords | None


def sorted_batch(batch: Mapping[str, Any], next_sentence: bool) -> Batch:
    """Sort a batch; the next sentence's labels are left out where ``next_sentence`` says so."""
    arrays = {_NAMES.get(name, name): jnp.asarray(x) for name, x in batch.items()}
    masked = None
    if "masked_lm_positions" in arrays:
        places, ids = arrays.pop("masked_lm_positions"), arrays.pop("masked_lm_ids")
        weights = arrays.pop("masked_lm_weights", jnp.ones(ids.shape))
        masked = MaskedWords(places, ids, weights.astype(jnp.float32))
    labels = {name: arrays.pop(name) for name in _LABELS if name in arrays}
    if "next_sentence_label" in labels:
        labels["next_sentence_label"] = labels["next_sentence_label"].reshape(-1)
        if not next_sentence:
            del labels["next_sentence_label"]
    return Batch(arrays, labels, masked)


def token_labels(masked: MaskedWords, length: int) -> Array:
    """Return masked words as labels [B, L], -100 elsewhere."""
    labels_BL = jnp.full((len(masked.ids), length + 1), IGNORED, jnp.int32)
    counted = masked.weights > 0
    rows = jnp.arange(len(masked.ids))[:, None]
    places, ids = jnp.where(counted, masked.positions, length), jnp.where(counted, masked.ids, IGNORED)
    return labels_BL.at[rows, places].set(ids.astype(jnp.int32))[:, :-1]


def masked_words(labels_BL: Array) -> MaskedWords:
    """Return labels [B, L] as masked words, every position one."""
    counted = labels_BL != IGNORED
    places = jnp.broadcast_to(jnp.arange(labels_BL.shape[1]), labels_BL.shape)
    return MaskedWords(places, jnp.where(counted, labels_BL, 0), counted.astype(jnp.float32))
