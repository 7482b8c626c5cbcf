"""The losses of the heads in float64 NumPy, each with its gradient with respect to the scores.

Legend: B batch, L length, V vocabulary, C labels or choices, M masked positions a text.

Labels are the models' arguments (labels, next_sentence_label, start_positions, end_positions) or, for the language
models, the original's masked_lm_positions and masked_lm_ids [B, M]; next_sentence_labels is next_sentence_label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.reference.own import own_function
from parity.reference.rounding import lossy

Labels = Mapping[str, np.ndarray]
Taps = dict[str, np.ndarray]
IGNORED = -100  # a label that does not count


class Term(NamedTuple):
    """A term of the loss: its value (NaN: a mean over nothing) and its gradients by the scores' names."""

    value: float
    gradients: Taps


Terms = dict[str, Term]


def loss_terms(config: BigBirdConfig, head: str, taps: Taps, labels: Labels) -> Terms:
    """Return the terms whose sum is the loss; raises ValueError for a head without a loss, and labels that misfit."""
    if config.family.heads[head].no_loss:
        raise ValueError(f"the {head} head has no loss: choose one of {', '.join(OF_HEADS)}")
    try:
        terms: Terms = own_function(config, head, "loss_terms", OF_HEADS)(config, taps, labels)
        return terms
    except KeyError as error:
        raise ValueError(f"the {head} head's loss needs {error}, found {', '.join(labels) or 'no labels'}") from None


def _cross_entropy(logits: np.ndarray, labels: np.ndarray, ignored: int = IGNORED, extra: float = 0) -> Term:
    """Mean over the labels [...] that are not ``ignored``; ``extra`` is added to their number. One gradient, "x"."""
    labels, classes = labels.reshape(logits.shape[:-1]).astype(np.int64), logits.shape[-1]
    counted = labels != ignored
    if ((labels < 0) | (labels >= classes))[counted].any():
        raise ValueError(f"labels are {labels.min()} .. {labels.max()}, expected 0 .. {classes - 1}, or {ignored}")
    if not counted.any():
        return Term(float("nan"), {"x": np.zeros_like(logits)})
    shifted = lossy(logits - logits.max(axis=-1, keepdims=True))
    log_probs = lossy(shifted - lossy(np.log(lossy(np.exp(shifted), classes).sum(axis=-1, keepdims=True))))
    one_hot = np.where(counted, labels, 0)[..., None] == np.arange(classes)
    count = counted.sum() + extra
    gradient = (lossy(np.exp(log_probs)) - one_hot) * counted[..., None] / count
    return Term(float(-lossy(log_probs[one_hot & counted[..., None]]).sum() / count), {"x": gradient})


def _rename(term: Term, name: str) -> Term:
    return Term(term.value, {name: term.gradients["x"]})


def language(name: str, taps: Taps, labels: Labels) -> Term:
    """Mean over the labels, or the original's over the masked positions, whose number has 1e-5 added."""
    logits_BLV = taps[name]
    if "masked_lm_positions" not in labels:
        return _rename(_cross_entropy(logits_BLV, labels["labels"]), name)
    at = (np.arange(len(logits_BLV))[:, None], labels["masked_lm_positions"])
    term = _cross_entropy(logits_BLV[at], labels["masked_lm_ids"], extra=1e-5)
    gradient = np.zeros_like(logits_BLV)
    np.add.at(gradient, at, term.gradients["x"])  # a position that stands twice counts twice
    return Term(term.value, {name: gradient})


def _pretraining(config: BigBirdConfig, taps: Taps, labels: Labels) -> Terms:
    terms = {"mlm_loss": language("prediction_logits", taps, labels)}
    next_sentence = labels.get("next_sentence_labels", labels.get("next_sentence_label"))
    if next_sentence is not None:
        name = "seq_relationship_logits"
        terms["nsp_loss"] = _rename(_cross_entropy(taps[name], next_sentence), name)
    return terms


def _masked_lm(config: BigBirdConfig, taps: Taps, labels: Labels) -> Terms:
    return {"mlm_loss": language("logits", taps, labels)}


def _causal_lm(config: BigBirdConfig, taps: Taps, labels: Labels) -> Terms:
    """Each token given those before it: the labels are the ids themselves, shifted here."""
    term = _cross_entropy(taps["logits"][:, :-1], labels["labels"][:, 1:])
    gradient = np.zeros_like(taps["logits"])
    gradient[:, :-1] = term.gradients["x"]
    return {"clm_loss": Term(term.value, {"logits": gradient})}


def _sequence_classification(config: BigBirdConfig, taps: Taps, labels: Labels) -> Terms:
    """Cross entropy, mean squared error or binary cross entropy, by problem_type, else by the labels' kind."""
    logits_BC, targets = taps["logits"], labels["labels"]
    several = "multi_label_classification" if targets.dtype.kind == "f" else "single_label_classification"
    problem = config.problem_type or ("regression" if config.num_labels == 1 else several)
    if problem == "single_label_classification":
        return {"cls_loss": _rename(_cross_entropy(logits_BC, targets), "logits")}
    targets_BC = targets.reshape(logits_BC.shape).astype(np.float64)
    if problem == "regression":
        error_BC = lossy(logits_BC) - targets_BC
        return {"cls_loss": Term(float(np.square(error_BC).mean()), {"logits": 2 * error_BC / error_BC.size})}
    logits_BC = lossy(logits_BC)
    values_BC = np.maximum(logits_BC, 0) - logits_BC * targets_BC + np.log1p(np.exp(-np.abs(logits_BC)))
    sigmoid_BC = lossy(1 + np.tanh(logits_BC / 2)) / 2
    return {"cls_loss": Term(float(values_BC.mean()), {"logits": (sigmoid_BC - targets_BC) / logits_BC.size})}


def _classes(config: BigBirdConfig, taps: Taps, labels: Labels) -> Terms:
    return {"loss": _rename(_cross_entropy(taps["logits"], labels["labels"]), "logits")}


def _question_answering(config: BigBirdConfig, taps: Taps, labels: Labels) -> Terms:
    """Half of each cross entropy; a position at or beyond L is ignored, a negative one counts as 0."""
    terms: Terms = {}
    for side in ("start", "end"):
        logits_BL = taps[f"{side}_logits"]
        length = logits_BL.shape[1]
        positions_B = labels[f"{side}_positions"].clip(0, length)
        term = _cross_entropy(logits_BL, positions_B, ignored=length)
        terms[f"{side}_loss"] = Term(term.value / 2, {f"{side}_logits": term.gradients["x"] / 2})
    return terms


OF_HEADS: dict[str, Callable[[BigBirdConfig, Taps, Labels], Terms]] = {
    "pretraining": _pretraining,
    "masked-lm": _masked_lm,
    "causal-lm": _causal_lm,
    "sequence-classification": _sequence_classification,
    "multiple-choice": _classes,
    "token-classification": _classes,
    "qa": _question_answering,
}
