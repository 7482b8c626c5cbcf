"""The losses, with transformers' values; a mean over no label at all is NaN, as there.

Legend: B batch, L length, V vocabulary, C labels or choices.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

IGNORED = -100  # a label that does not count


def masked_lm_loss(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """Mean cross entropy over the labels that are not -100."""
    return functional.cross_entropy(logits_BLV.flatten(0, 1), labels_BL.flatten().long(), ignore_index=IGNORED)


def next_sentence_loss(logits_B2: Tensor, labels_B: Tensor) -> Tensor:
    """Mean cross entropy; 0 is the next sentence, 1 a random one."""
    return functional.cross_entropy(logits_B2, labels_B.flatten().long(), ignore_index=IGNORED)


def causal_lm_loss(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """Mean cross entropy of each token given those before it: labels are the ids, the shift is made here."""
    return masked_lm_loss(logits_BLV[:, :-1].float(), labels_BL[:, 1:])


def classification_loss(logits_BC: Tensor, labels: Tensor, num_labels: int, problem_type: str | None) -> Tensor:
    """Cross entropy (labels [B]), mean squared error (regression), or binary cross entropy (multi-label, [B, C]).

    problem_type None: regression for one label, else by the labels: integers are classes, floats are multi-label.
    """
    if problem_type is None:
        integers = not labels.is_floating_point()
        several = "single_label_classification" if integers else "multi_label_classification"
        problem_type = "regression" if num_labels == 1 else several
    if problem_type == "single_label_classification":
        return functional.cross_entropy(logits_BC, labels.flatten().long(), ignore_index=IGNORED)
    targets_BC = labels.to(logits_BC.dtype).view_as(logits_BC)
    if problem_type == "regression":
        return functional.mse_loss(logits_BC, targets_BC)
    return functional.binary_cross_entropy_with_logits(logits_BC, targets_BC)


def multiple_choice_loss(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean cross entropy over the choices."""
    return functional.cross_entropy(logits_BC, labels_B.flatten().long(), ignore_index=IGNORED)


def token_classification_loss(logits_BLC: Tensor, labels_BL: Tensor) -> Tensor:
    """Mean cross entropy over the labels that are not -100."""
    return functional.cross_entropy(logits_BLC.flatten(0, 1), labels_BL.flatten().long(), ignore_index=IGNORED)


def question_answering_loss(
    start_logits_BL: Tensor, end_logits_BL: Tensor, start_positions_B: Tensor, end_positions_B: Tensor
) -> Tensor:
    """Mean of start's and end's cross entropy; a position at or beyond L is ignored, a negative one counts as 0."""
    L = start_logits_BL.shape[1]
    starts_B, ends_B = (x.flatten().long().clamp(0, L) for x in (start_positions_B, end_positions_B))
    start_loss = functional.cross_entropy(start_logits_BL, starts_B, ignore_index=L)
    end_loss = functional.cross_entropy(end_logits_BL, ends_B, ignore_index=L)
    return (start_loss + end_loss) / 2
