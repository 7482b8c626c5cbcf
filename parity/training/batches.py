"""Seeded batches to train on: the original's features where words are predicted, else the model's keywords.

Legend: B batch, L length, M masked positions a text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bigbird_port.families.configuration import Configuration
from parity.given.inputs import Inputs, make_inputs
from parity.measure.losses import make_labels

MASKED = 20  # at most, in a text: the original's max_predictions_per_seq
_WORDS = ("masked words", "masked words, next sentence")


def make_batches(config: Configuration, head: str, steps: int, batch: int, length: int, seed: int) -> list[Inputs]:
    """Return a batch for every step, drawn from ``seed``; each another number of masked words."""
    return [_batch(config, head, batch, length, seed * 1000 + step) for step in range(steps)]


def _batch(config: Any, head: str, batch: int, length: int, seed: int) -> Inputs:
    inputs = make_inputs(config, batch, length, seed)
    own = config.family.heads[head]
    if own.labels not in _WORDS:
        return inputs | make_labels(config, head, inputs, seed)
    rng = np.random.default_rng([seed, 2])
    places, ids, weights = (np.zeros((batch, MASKED), kind) for kind in (np.int32, np.int32, np.float32))
    for b in range(batch):
        count = int(rng.integers(1, min(MASKED, length) + 1))
        places[b, :count] = np.sort(rng.choice(length, count, replace=False))
        ids[b, :count] = rng.integers(1, config.vocab_size, count)
        weights[b, :count] = 1
    features = {"masked_lm_positions": places, "masked_lm_ids": ids, "masked_lm_weights": weights}
    if own.labels == _WORDS[1]:
        features["next_sentence_labels"] = rng.integers(2, size=(batch, 1)).astype(np.int32)
    renamed = {"segment_ids" if name == "token_type_ids" else name: x for name, x in inputs.items()}
    return renamed | features


def for_reference(batch: Inputs, next_sentence: bool) -> tuple[Inputs, Inputs]:
    """Return a batch as inputs and labels of the float64 reference; words that do not count are left out."""
    batch = dict(batch)
    inputs = {"input_ids": batch.pop("input_ids")}
    for name in ("segment_ids", "token_type_ids"):
        if name in batch:
            inputs["token_type_ids"] = batch.pop(name)
    if "attention_mask" in batch:
        inputs["attention_mask"] = batch.pop("attention_mask")
    weights = batch.pop("masked_lm_weights", None)
    if weights is not None:
        batch["masked_lm_ids"] = np.where(weights > 0, batch["masked_lm_ids"], -100)
    if not next_sentence:
        batch = {name: x for name, x in batch.items() if not name.startswith("next_sentence")}
    return inputs, batch
