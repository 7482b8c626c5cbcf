"""What both frameworks' losses of summaries ask of labels, and what smoothed labels cost."""

from __future__ import annotations

import math
from typing import Any


def check_summaries(labels_BT: Any, positions: int) -> None:
    """Raise ValueError for labels [batch, tokens] of no length, or longer than there are positions."""
    if labels_BT.ndim != 2 or 0 in labels_BT.shape:
        raise ValueError(f"labels has shape {list(labels_BT.shape)}, expected [batch, length] with neither 0")
    if labels_BT.shape[1] > positions:
        raise ValueError(
            f"labels are {labels_BT.shape[1]} tokens long, but there are {positions} position embeddings "
            "(max_position_embeddings): cut them"
        )


def smoothing_cost(label_smoothing: float, vocab_size: int) -> float:
    """Return the entropy of a smoothed label, which no model goes below; 0 without smoothing."""
    if label_smoothing == 0:
        return 0.0
    rest = label_smoothing / (vocab_size - 1)
    return -((1 - label_smoothing) * math.log(1 - label_smoothing) + (vocab_size - 1) * rest * math.log(rest + 1e-20))
