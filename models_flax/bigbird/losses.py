"""The losses, with transformers' values; a mean over no label at all is NaN, as there.

Legend: B batch, L length, V vocabulary, C labels or choices.
"""

from __future__ import annotations

import jax
from jax import Array
from jax import numpy as jnp

from models_flax.bigbird.inputs import IGNORED, check_class_labels, check_labels, check_positions


def masked_lm_loss(logits_BLV: Array, labels_BL: Array) -> Array:
    """Mean cross entropy over the labels that are not -100."""
    check_labels("labels", labels_BL, logits_BLV.shape[:-1], logits_BLV.shape[-1])
    return _cross_entropy(logits_BLV, labels_BL, IGNORED)


def next_sentence_loss(logits_B2: Array, labels_B: Array) -> Array:
    """Mean cross entropy; 0 is the next sentence, 1 a random one."""
    check_labels("next_sentence_label", labels_B, logits_B2.shape[:-1], 2)
    return _cross_entropy(logits_B2, labels_B.reshape(-1), IGNORED)


def causal_lm_loss(logits_BLV: Array, labels_BL: Array) -> Array:
    """Mean cross entropy of each token given those before it: labels are the ids, the shift is made here."""
    check_labels("labels", labels_BL, logits_BLV.shape[:-1], logits_BLV.shape[-1])
    return _cross_entropy(logits_BLV[:, :-1].astype(jnp.float32), labels_BL[:, 1:], IGNORED)


def classification_loss(logits_BC: Array, labels: Array, num_labels: int, problem_type: str | None) -> Array:
    """Cross entropy (labels [B]), mean squared error (regression), or binary cross entropy (multi-label, [B, C]).

    problem_type None: regression for one label, else by the labels: integers are classes, floats are multi-label.
    """
    check_class_labels(labels, len(logits_BC), num_labels, problem_type)
    if problem_type is None:
        integers = jnp.issubdtype(labels.dtype, jnp.integer)
        several = "single_label_classification" if integers else "multi_label_classification"
        problem_type = "regression" if num_labels == 1 else several
    if problem_type == "single_label_classification":
        return _cross_entropy(logits_BC, labels.reshape(-1), IGNORED)
    targets_BC = labels.astype(logits_BC.dtype).reshape(logits_BC.shape)
    if problem_type == "regression":
        return ((logits_BC - targets_BC) ** 2).mean()
    losses_BC = targets_BC * jax.nn.log_sigmoid(logits_BC) + (1 - targets_BC) * jax.nn.log_sigmoid(-logits_BC)
    return -losses_BC.mean()


def multiple_choice_loss(logits_BC: Array, labels_B: Array) -> Array:
    """Mean cross entropy over the choices."""
    check_labels("labels", labels_B, logits_BC.shape[:-1], logits_BC.shape[-1])
    return _cross_entropy(logits_BC, labels_B.reshape(-1), IGNORED)


def token_classification_loss(logits_BLC: Array, labels_BL: Array) -> Array:
    """Mean cross entropy over the labels that are not -100."""
    check_labels("labels", labels_BL, logits_BLC.shape[:-1], logits_BLC.shape[-1])
    return _cross_entropy(logits_BLC, labels_BL, IGNORED)


def question_answering_loss(
    start_logits_BL: Array, end_logits_BL: Array, start_positions_B: Array, end_positions_B: Array
) -> Array:
    """Mean of start's and end's cross entropy; a position at or beyond L is ignored, a negative one counts as 0."""
    check_positions(start_positions_B, end_positions_B, len(start_logits_BL))
    L = start_logits_BL.shape[1]
    starts_B, ends_B = (x.reshape(-1).clip(0, L) for x in (start_positions_B, end_positions_B))
    return (_cross_entropy(start_logits_BL, starts_B, L) + _cross_entropy(end_logits_BL, ends_B, L)) / 2


def _cross_entropy(logits: Array, labels: Array, ignored: int) -> Array:
    """Mean of -log softmax at the labels that are not ``ignored``; logits have one axis more."""
    counts = labels != ignored
    scores = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.where(counts, labels, 0)[..., None], axis=-1)
    return -jnp.where(counts, scores[..., 0], 0).sum() / counts.sum()
