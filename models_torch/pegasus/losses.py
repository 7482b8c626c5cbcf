"""The losses of summaries, and the decoder's inputs that belong to them.

Legend: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_torch.bigbird.losses import IGNORED, masked_lm_loss


def decoder_inputs(labels_BT: Tensor, config: BigBirdPegasusConfig) -> Tensor:
    """Return what the decoder reads for these labels, by config.loss_style, [B, T].

    The original: the start id, then the labels, and padding from the place on that is the number of labels which are no
    padding. transformers: the start id, then the labels. Labels of -100 are padding.
    """
    ids_BT = torch.where(labels_BT == IGNORED, config.pad_token_id, labels_BT)
    shifted_BT = functional.pad(ids_BT[:, :-1], (1, 0), value=config.decoder_start_token_id)
    if config.loss_style == "transformers":
        return shifted_BT
    counts_B1 = (ids_BT != config.pad_token_id).sum(dim=1, keepdim=True)
    places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    return torch.where(places_T < counts_B1, shifted_BT, config.pad_token_id)


def summary_loss(logits_BTV: Tensor, labels_BT: Tensor, label_smoothing: float, loss_style: str) -> Tensor:
    """Return the loss of a summary.

    The original (loss_style "original"): the cross entropy with smoothed labels of all places, padding among them with
    id 0 as its label, less what smoothing itself costs; divided by the number of labels that are not 0. transformers':
    the mean cross entropy over the labels that are not -100.
    """
    if loss_style == "transformers":
        return masked_lm_loss(logits_BTV, labels_BT)
    ids_BT, V = torch.where(labels_BT == IGNORED, 0, labels_BT).long(), logits_BTV.shape[-1]
    log_p_BTV = logits_BTV.float().log_softmax(dim=-1)
    at_label_BT = log_p_BTV.gather(-1, ids_BT[..., None])[..., 0]
    rest = label_smoothing / (V - 1)
    losses_BT = -(1 - label_smoothing) * at_label_BT - rest * (log_p_BTV.sum(dim=-1) - at_label_BT)
    return (losses_BT - smoothing_cost(label_smoothing, V)).sum() / (ids_BT != 0).sum()


def smoothing_cost(label_smoothing: float, vocab_size: int) -> float:
    """Return the entropy of a smoothed label, which no model goes below; 0 without smoothing."""
    if label_smoothing == 0:
        return 0.0
    rest = label_smoothing / (vocab_size - 1)
    return -((1 - label_smoothing) * math.log(1 - label_smoothing) + (vocab_size - 1) * rest * math.log(rest + 1e-20))
