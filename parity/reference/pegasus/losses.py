"""The losses of BigBird-Pegasus in float64 NumPy, each with its gradient with respect to the scores.

Legend: B batch, T tokens of the decoder, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from parity.reference.losses import IGNORED, OF_HEADS, Labels, Taps, Term, Terms, language
from parity.reference.rounding import lossy


def _summaries(config: BigBirdPegasusConfig, taps: Taps, labels: Labels) -> Terms:
    """The original's loss, or transformers': the mean over the labels that are not -100."""
    if config.loss_style == "transformers":
        return {"summary_loss": language("logits", taps, labels)}
    return {"summary_loss": smoothed(taps["logits"], labels["labels"], config.label_smoothing)}


def smoothed(logits_BTV: np.ndarray, labels_BT: np.ndarray, smoothing: float) -> Term:
    """Return the sum over all places, padding among them, divided by the number of labels that are not 0.

    Each place has the cross entropy of its smoothed label, less that label's own entropy.
    """
    labels_BT, V = np.where(labels_BT == IGNORED, 0, labels_BT), logits_BTV.shape[-1]
    shifted = lossy(logits_BTV - logits_BTV.max(axis=-1, keepdims=True))
    log_p_BTV = lossy(shifted - lossy(np.log(lossy(np.exp(shifted), V).sum(axis=-1, keepdims=True))))
    rest = smoothing / (V - 1)
    wanted_BTV = np.where(labels_BT[..., None] == np.arange(V), 1 - smoothing, rest)
    entropy = -((1 - smoothing) * math.log(1 - smoothing) + (V - 1) * rest * math.log(rest + 1e-20)) if smoothing else 0
    count = (labels_BT != 0).sum()
    total = -(wanted_BTV * lossy(log_p_BTV, V)).sum() - entropy * labels_BT.size
    return Term(float(total / count), {"logits": (lossy(np.exp(log_p_BTV)) - wanted_BTV) / count})


LOSSES: dict[str, Callable[[Any, Taps, Labels], Terms]] = {
    "conditional-generation": _summaries,
    **{head: OF_HEADS[head] for head in ("causal-lm", "sequence-classification", "qa")},
}
