"""The losses of summaries, and the decoder's inputs that belong to them.

Legend: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.families.pegasus.summaries import check_summaries, smoothing_cost
from models_torch.bigbird.losses import IGNORED, masked_lm_loss


def decoder_inputs(labels_BT: Tensor, config: BigBirdPegasusConfig) -> Tensor:
    """Return what the decoder reads for these labels, by config.loss_style, [B, T].

    The original: the start id, then the labels, and padding from the place on that is the number of labels which are no
    padding. transformers: the start id, then the labels. Labels of -100 are padding.

    Raises ValueError for labels of no length, or longer than there are positions.
    """
    check_summaries(labels_BT, config.max_position_embeddings)
    ids_BT, shifted_BT = _padded(labels_BT, config), behind_start(labels_BT, config)
    if config.loss_style == "transformers":
        return shifted_BT
    counts_B1 = (ids_BT != config.pad_token_id).sum(dim=1, keepdim=True)
    places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    return torch.where(places_T < counts_B1, shifted_BT, config.pad_token_id)


def behind_start(labels_BT: Tensor, config: BigBirdPegasusConfig) -> Tensor:
    """Return ids [B, T] behind the start id, without the last of them; -100 is padding."""
    return functional.pad(_padded(labels_BT, config)[:, :-1], (1, 0), value=config.decoder_start_token_id)


def summary_loss(logits_BTV: Tensor, labels_BT: Tensor, label_smoothing: float, loss_style: str) -> Tensor:
    """Return the loss of a summary.

    The original (loss_style "original"): the cross entropy with smoothed labels of all places, padding among them with
    id 0 as its label, less what smoothing itself costs; divided by the number of labels that are not 0. transformers':
    the mean cross entropy over the labels that are not -100.

    Raises ValueError where no label counts, because there is no loss then.
    """
    _check_some(labels_BT, loss_style)
    if loss_style == "transformers":
        return masked_lm_loss(logits_BTV, labels_BT)
    ids_BT, V = torch.where(labels_BT == IGNORED, 0, labels_BT).long(), logits_BTV.shape[-1]
    log_p_BTV = logits_BTV.float().log_softmax(dim=-1)
    at_label_BT = log_p_BTV.gather(-1, ids_BT[..., None])[..., 0]
    rest = label_smoothing / (V - 1)
    losses_BT = -(1 - label_smoothing) * at_label_BT - rest * (log_p_BTV.sum(dim=-1) - at_label_BT)
    return (losses_BT - smoothing_cost(label_smoothing, V)).sum() / (ids_BT != 0).sum()


def _check_some(labels_BT: Tensor, loss_style: str) -> None:
    """Raise ValueError unless some label counts; a traced array has no values to look at."""
    if labels_BT.is_meta or torch.compiler.is_compiling():
        return
    counts_BT = labels_BT != IGNORED if loss_style == "transformers" else (labels_BT != IGNORED) & (labels_BT != 0)
    if not counts_BT.any():
        padding = IGNORED if loss_style == "transformers" else f"0 or {IGNORED}"
        raise ValueError(f"labels hold no token: all are padding ({padding}): give summaries, or no labels")


def _padded(labels_BT: Tensor, config: BigBirdPegasusConfig) -> Tensor:
    return torch.where(labels_BT == IGNORED, config.pad_token_id, labels_BT)
