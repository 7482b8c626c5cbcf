"""Losses of the heads: labels made from a seed, and the twins' own functions on them.

Legend: B batch, L length, C labels or choices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bigbird_port.config import BigBirdConfig
from parity.inputs import Inputs

# The twins' losses are called alike: head -> (function, its arguments among scores and labels).
_TERMS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "pretraining": (
        ("masked_lm_loss", ("prediction_logits", "labels")),
        ("next_sentence_loss", ("seq_relationship_logits", "next_sentence_label")),
    ),
    "masked-lm": (("masked_lm_loss", ("logits", "labels")),),
    "causal-lm": (("causal_lm_loss", ("logits", "labels")),),
    "sequence-classification": (("classification_loss", ("logits", "labels")),),
    "multiple-choice": (("multiple_choice_loss", ("logits", "labels")),),
    "token-classification": (("token_classification_loss", ("logits", "labels")),),
    "qa": (("question_answering_loss", ("start_logits", "end_logits", "start_positions", "end_positions")),),
}
_EVERY = 7  # one position in seven is to be predicted, as many as in training


def has_loss(head: str) -> bool:
    """Whether the head has a loss."""
    return head in _TERMS


def scores_dtype(head: str, dtype: str) -> str:
    """Return the dtype of a head's scores: question answering takes 1e6 from some, in no narrower one than float32."""
    return "float32" if head == "qa" and dtype in ("bfloat16", "float16") else dtype


def total_loss(module: Any, config: BigBirdConfig, head: str, scores: dict[str, Any], labels: dict[str, Any]) -> Any:
    """Return the sum of a head's losses by ``module`` (models_torch.bigbird.losses or models_flax.bigbird.losses).

    A term whose scores are absent is left out: those of a piece of the positions hold no score of the whole text.
    """
    given = scores | labels
    total = None
    for name, arguments in _TERMS[head]:
        if all(argument in given for argument in arguments):
            extra = (config.num_labels, config.problem_type) if name == "classification_loss" else ()
            term = getattr(module, name)(*(given[argument] for argument in arguments), *extra)
            total = term if total is None else total + term
    if total is None:
        raise ValueError(f"no scores for the loss of {head}: found {', '.join(scores) or 'none'}")
    return total


def make_labels(config: BigBirdConfig, head: str, inputs: Inputs, seed: int) -> Inputs:
    """Return labels of a head with a loss, drawn from ``seed``; token labels [B, L] count at one position in seven."""
    rng = np.random.default_rng([seed, 1])
    ids = inputs["input_ids"]
    (B, *_, L), C = ids.shape, config.num_labels
    if head == "causal-lm":
        return {"labels": ids.astype(np.int64)}
    if head in ("pretraining", "masked-lm"):
        labels = np.full((B, L), -100, np.int64)
        labels[:, ::_EVERY] = rng.integers(config.vocab_size, size=labels[:, ::_EVERY].shape)
        pair: Inputs = {"next_sentence_label": np.asarray(rng.integers(2, size=B))} if head == "pretraining" else {}
        return pair | {"labels": labels}
    if head == "qa":
        spans = np.sort(rng.integers(L // 2, L, size=(2, B)), axis=0)
        return {"start_positions": spans[0], "end_positions": spans[1]}
    if head == "sequence-classification":
        return {"labels": _class_labels(config, rng, B)}
    if head == "token-classification":
        return {"labels": np.asarray(rng.integers(C, size=(B, L)))}
    return {"labels": np.asarray(rng.integers(ids.shape[1], size=B))}


def _class_labels(config: BigBirdConfig, rng: np.random.Generator, B: int) -> np.ndarray:
    C = config.num_labels
    if config.problem_type == "multi_label_classification":
        return rng.integers(2, size=(B, C)).astype(np.float32)
    if config.problem_type == "regression" or (config.problem_type is None and C == 1):
        return rng.standard_normal((B, C)).astype(np.float32)
    return rng.integers(C, size=B)
