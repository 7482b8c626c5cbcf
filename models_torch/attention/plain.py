"""What attention computes: softmax(q k^T / sqrt(H) + bias) v, and the bias that a mask becomes.

Everything else in this room is about which queries meet which keys, and about time and memory.

Legend: L queries, K keys, H head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models_torch.attention import onednn


def attend(q_LH: Tensor, k_KH: Tensor, v_KH: Tensor, bias_LK: Tensor, dropout: nn.Module | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(H) + bias) v, [..., L, H]; leading axes broadcast, ``bias`` is mask_bias's."""
    if dropout is None and onednn.suits(q_LH, k_KH, bias_LK):
        return onednn.attend(q_LH, k_KH, v_KH, bias_LK.expand(len(q_LH), 1, -1))
    weights_LK = weights(q_LH, k_KH, bias_LK)
    return (dropout(weights_LK) if dropout else weights_LK) @ v_KH


def weights(q_LH: Tensor, k_KH: Tensor, bias_LK: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(H) + bias), [..., L, K]."""
    scale = 1 / math.sqrt(q_LH.shape[-1])
    if q_LH.ndim == 3:  # scale, product and bias in one pass: a fifth of block-sparse attention's time
        scores_LK = torch.baddbmm(bias_LK, q_LH, k_KH.transpose(-1, -2), alpha=scale)
    else:
        scores_LK = (q_LH * scale) @ k_KH.transpose(-1, -2)
        scores_LK += bias_LK
    return scores_LK.softmax(dim=-1)


def mask_bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where ``allowed`` and else a number so low that exp gives 0; a row without any key weighs all alike."""
    return torch.where(allowed, 0.0, lowest(dtype)).to(dtype)


def lowest(dtype: torch.dtype) -> float:
    """Half of the lowest number, so that adding a score does not overflow to -inf, whose softmax would be NaN."""
    return max(torch.finfo(dtype).min, torch.finfo(torch.float32).min) / 2  # a wider one is -inf to torch.where
