"""Batches of either kind: the model's keywords, or the original's features.

Legend: B batch, L length, M masked positions a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models_torch.bigbird.losses import IGNORED

_NAMES = {"segment_ids": "token_type_ids", "next_sentence_labels": "next_sentence_label"}
_LABELS = ("labels", "next_sentence_label", "start_positions", "end_positions")


class MaskedWords(NamedTuple):
    """The words that are predicted: positions [B, M], ids [B, M], weights [B, M]; 0 where there is none."""

    positions: Tensor
    ids: Tensor
    weights: Tensor


class Batch(NamedTuple):
    """A batch, sorted: what the model is called with, its labels, and the masked words where they are given so."""

    inputs: dict[str, Tensor]
    labels: dict[str, Tensor]
    masked: MaskedWords | None


def sorted_batch(batch: Mapping[str, Any], device: torch.device, next_sentence: bool) -> Batch:
    """Sort a batch; the next sentence's labels are left out where ``next_sentence`` says so."""
    arrays = {_NAMES.get(name, name): torch.as_tensor(x).to(device) for name, x in batch.items()}
    masked = None
    if "masked_lm_positions" in arrays:
        places, ids = arrays.pop("masked_lm_positions").long(), arrays.pop("masked_lm_ids").long()
        weights = arrays.pop("masked_lm_weights", torch.ones_like(ids, dtype=torch.float32))
        masked = MaskedWords(places, ids, weights.float())
    labels = {name: arrays.pop(name) for name in _LABELS if name in arrays}
    if "next_sentence_label" in labels:
        labels["next_sentence_label"] = labels["next_sentence_label"].flatten()
        if not next_sentence:
            del labels["next_sentence_label"]
    return Batch(arrays, labels, masked)


def token_labels(masked: MaskedWords, length: int) -> Tensor:
    """Return masked words as labels [B, L], -100 elsewhere."""
    labels_BL = torch.full((len(masked.ids), length + 1), IGNORED, device=masked.ids.device)
    counted = masked.weights > 0
    labels_BL.scatter_(1, masked.positions.where(counted, length), masked.ids.where(counted, IGNORED))
    return labels_BL[:, :-1]


def masked_words(labels_BL: Tensor) -> MaskedWords:
    """Return labels [B, L] as masked words, every position one."""
    counted = labels_BL != IGNORED
    places = torch.arange(labels_BL.shape[1], device=labels_BL.device).expand(labels_BL.shape)
    return MaskedWords(places, labels_BL.where(counted, 0).long(), counted.float())
