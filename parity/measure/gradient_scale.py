"""What errors of gradients are relative to: the terms that they are sums of, and how steep the loss is.

Gradients are sums that may cancel; what is left is as uncertain as the terms were. And a loss of probabilities is as
uncertain, relative to itself, as its scores are in nats: those of large scores are off by more of themselves.

Legend: B batch, L length, N heads, H head size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from bigbird_port.families.bigbird.family import BIGBIRD
from parity.measure.metrics import scale_of
from parity.reference.heads import MASKED

_TERMS = [(tap.last_name, other) for tap in BIGBIRD.layer for other in tap.terms]
_ROWS = [(tap.last_name, other) for tap in BIGBIRD.layer for other in tap.rows]


def gradient_scale(name: str, gradients: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what errors of a gradient are relative to, to broadcast over it.

    gradients: of weights by canonical name, and of taps. A bias's gradient is a sum over positions of what its kernel's
    is a weighted sum of (likewise beta and gamma), and may cancel: that of a key's bias is exactly 0. Those of queries
    and keys are differences of terms of the size of the value's, which cancel where all keys are alike. Positions that
    the loss looks at have far larger gradients than others: in taps and embeddings, each row (last axis) counts with
    its own root mean square where that is larger (a query's with its context's, a key's with its value's); and so does
    each word in the decoder's bias, with its scores'.
    """
    scale = np.array(max(scale_of(gradients[x]) for x in _peers(name) if x in gradients))
    if added_to := {tap.name for head in BIGBIRD.heads.values() for tap in head.taps if tap.bias == name}:
        words = [_column_scale(gradients[x]) for x in added_to if x in gradients]
        return np.maximum.reduce([np.broadcast_to(scale, gradients[name].shape), *words])
    if gradients[name].ndim < 2 or name.endswith(".kernel"):
        return scale
    rows = [_row_scale(gradients[name])]
    for part, other in _ROWS:
        if name.endswith(f".{part}") and (beside := f"{name.removesuffix(part)}{other}") in gradients:
            rows.append(_aligned(_row_scale(gradients[beside]), beside, name))
    return np.maximum.reduce([np.broadcast_to(scale, rows[0].shape), *rows])


def steepness(scores: Mapping[str, np.ndarray]) -> float:
    """Return how many times less exact a loss's gradients are than its terms: its scores' scale in nats, or 1 if less.

    scores: that the loss is of, by tap; those of a question's tokens do not count.

    A probability is off by as much of itself as its score is off, and a score by some ulp of itself. Every gradient is
    linear in (probability - label).
    """
    return max(1.0, *(scale_of(x[x > MASKED]) for x in scores.values()))


def _peers(name: str) -> set[str]:
    names = {name}
    for one, other in ((".bias", ".kernel"), (".beta", ".gamma")):
        names |= {x.removesuffix(one) + other for x in names if x.endswith(one)}
    for part, other in _TERMS:
        names |= {re.sub(rf"\.{part}(\.|$)", rf".{other}\1", x) for x in names}
    return names


def _aligned(x: np.ndarray, tap: str, like: str) -> np.ndarray:
    """A tap with its axes in the order of those of another tap."""
    places = BIGBIRD.place(tap), BIGBIRD.place(like)
    if places[0] is None or places[1] is None:
        return x
    return x.transpose([places[0].tap.names.index(axis) for axis in places[1].tap.names])


def _row_scale(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(x).mean(axis=-1, keepdims=True))


def _column_scale(x: np.ndarray) -> np.ndarray:
    """How large a sum over all axes but the last is, by chance, where it does not cancel."""
    return np.sqrt(np.square(x).sum(axis=tuple(range(x.ndim - 1))))
