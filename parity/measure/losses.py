"""Losses of the heads: labels made from a seed, and the twins' own functions on them.

Legend: B batch, L length, C labels or choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Family, Head
from bigbird_port.families.registry import default_family
from parity.given.inputs import DECODER_IDS, Inputs

NEXT_WORDS = "next words"  # the ids themselves, shifted by one
PLACES = "spans"  # where in the text something begins and ends
_EVERY = 7  # one position in seven is to be predicted, as many as in training


def has_loss(head: str, family: Family | None = None) -> bool:
    """Whether a head of a family (None: the default one) has a loss."""
    return not (family or default_family()).heads[head].no_loss


def why_no_loss(own: Head, length: int) -> str:
    """Say why a head has no loss on texts of ``length`` tokens; empty where it has one."""
    if not own.no_loss and own.labels == NEXT_WORDS and length == 1:
        return "a single token has no next one"
    return own.no_loss


def scores_dtype(own: Head, dtype: str) -> str:
    """Return the dtype of a head's scores. Where a penalty of 1e6 is taken from some, it is float32 at least."""
    return "float32" if own.is_penalised and dtype in ("bfloat16", "float16") else dtype


def total_loss(module: Any, config: BigBirdConfig, head: str, scores: dict[str, Any], labels: dict[str, Any]) -> Any:
    """Return the sum of a head's losses by ``module`` (models_torch.losses or models_flax.losses).

    A term whose scores are absent is left out: those of a piece of the positions hold no score of the whole text.
    """
    given = scores | labels
    total = None
    for loss in config.family.heads[head].losses:
        if all(argument in given for argument in loss.arguments):
            arguments = [given[argument] for argument in loss.arguments]
            term = getattr(module, loss.function)(*arguments, *(getattr(config, name) for name in loss.settings))
            total = term if total is None else total + term
    if total is None:
        raise ValueError(f"no scores for the loss of {head}: found {', '.join(scores) or 'none'}")
    return total


def make_labels(config: BigBirdConfig, head: str, inputs: Inputs, seed: int) -> Inputs:
    """Return labels of a head with a loss, drawn from ``seed``; token labels [B, L] count at one position in seven."""
    make, rng = MAKERS[config.family.heads[head].labels], np.random.default_rng([seed, 1])
    return make(config.for_head(head), inputs.get(DECODER_IDS, inputs["input_ids"]), rng)


def _masked_words(config: BigBirdConfig, ids: np.ndarray, rng: np.random.Generator) -> Inputs:
    labels = np.full(ids.shape, -100, np.int64)
    labels[:, ::_EVERY] = rng.integers(config.vocab_size, size=labels[:, ::_EVERY].shape)
    return {"labels": labels}


def _masked_words_and_next_sentence(config: BigBirdConfig, ids: np.ndarray, rng: np.random.Generator) -> Inputs:
    words = _masked_words(config, ids, rng)
    return {"next_sentence_label": np.asarray(rng.integers(2, size=len(ids)))} | words


def _next_words(config: BigBirdConfig, ids: np.ndarray, rng: np.random.Generator) -> Inputs:
    return {"labels": ids.astype(np.int64)}


def _summaries(config: Any, ids: np.ndarray, rng: np.random.Generator) -> Inputs:
    """The summaries that a decoder reads behind the start id: each ends in the end of the sequence, if there is room.

    So these inputs are those that the original makes of these labels.
    """
    labels, count_B = np.zeros(ids.shape, np.int64), (ids != config.pad_token_id).sum(axis=1)
    labels[:, :-1] = ids[:, 1:]
    labels[np.arange(len(ids)), count_B - 1] = config.eos_token_id
    return {"labels": labels}


def _spans(config: BigBirdConfig, ids: np.ndarray, rng: np.random.Generator) -> Inputs:
    B, L = ids.shape
    spans = np.sort(rng.integers(L // 2, L, size=(2, B)), axis=0)
    return {"start_positions": spans[0], "end_positions": spans[1]}


def _classes(config: BigBirdConfig, ids: np.ndarray, rng: np.random.Generator) -> Inputs:
    B, C = len(ids), config.num_labels
    if config.problem_type == "multi_label_classification":
        return {"labels": rng.integers(2, size=(B, C)).astype(np.float32)}
    if config.problem_type == "regression" or (config.problem_type is None and C == 1):
        return {"labels": rng.standard_normal((B, C)).astype(np.float32)}
    return {"labels": rng.integers(C, size=B)}


def _class_of_each_token(config: BigBirdConfig, ids: np.ndarray, rng: np.random.Generator) -> Inputs:
    return {"labels": np.asarray(rng.integers(config.num_labels, size=ids.shape))}


def _choices(config: BigBirdConfig, ids: np.ndarray, rng: np.random.Generator) -> Inputs:
    return {"labels": np.asarray(rng.integers(ids.shape[1], size=len(ids)))}


# What a head's record calls its labels -> how they are drawn, from the configuration and ids [B, L] (or [B, C, L]).
MAKERS: dict[str, Callable[[BigBirdConfig, np.ndarray, np.random.Generator], Inputs]] = {
    "masked words": _masked_words,
    "masked words, next sentence": _masked_words_and_next_sentence,
    NEXT_WORDS: _next_words,
    "summaries": _summaries,
    PLACES: _spans,
    "classes": _classes,
    "class of each token": _class_of_each_token,
    "choices": _choices,
}
