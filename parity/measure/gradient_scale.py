"""What errors of gradients are relative to: the size of their terms, and the size of the loss's scores.

* A gradient is a sum whose terms may cancel. What is left is as uncertain as the terms were. So the error is related to
  the terms (``gradient_scale``).
* A gradient's tolerance is multiplied by max(1, RMS of the loss's scores in nats), because float32 rounds large scores
  by more (``steepness``).

Legend: B batch, L length, N heads, H head size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family
from parity.measure.metrics import scale_of
from parity.reference.heads import MASKED


def gradient_scale(name: str, gradients: Mapping[str, np.ndarray], family: Family | None = None) -> np.ndarray:
    """Return what errors of a gradient are relative to, as an array that broadcasts over the gradient.

    name: of the gradient, as in ``gradients``. gradients: of weights by canonical name, and of taps by the tap's name.

    The scale is the largest of these:

    * the gradient's own scale;
    * for a bias, the scale of its kernel's gradient (for a beta, of its gamma's). Both are sums over positions, but the
      bias's may cancel. The gradient of a key's bias is exactly 0;
    * for queries and keys, the scale of the value's gradient. They are differences of terms of that size, and cancel
      where all keys are alike;
    * in taps and embeddings, for each row (last axis) the row's root mean square, because the positions that the loss
      looks at have far larger gradients than others. For queries the context's row counts as well, and for keys the
      value's;
    * in the decoder's bias, for each word the size of the sum of its scores' gradients.
    """
    family = family or default_family()
    scale = np.array(max(scale_of(gradients[x]) for x in _peers(name, family) if x in gradients))
    if added_to := {tap.name for head in family.heads.values() for tap in head.taps if tap.bias == name}:
        words = [_column_scale(gradients[x]) for x in added_to if x in gradients]
        return np.maximum.reduce([np.broadcast_to(scale, gradients[name].shape), *words])
    if gradients[name].ndim < 2 or name.endswith(".kernel"):
        return scale
    rows = [_row_scale(gradients[name])]
    for part, other in _pairs(family, "rows"):
        if name.endswith(f".{part}") and (beside := f"{name.removesuffix(part)}{other}") in gradients:
            rows.append(_aligned(_row_scale(gradients[beside]), beside, name, family))
    return np.maximum.reduce([np.broadcast_to(scale, rows[0].shape), *rows])


def steepness(scores: Mapping[str, np.ndarray]) -> float:
    """Return max(1, RMS of the loss's scores in nats), by which the tolerances of its gradients are multiplied.

    scores: the scores that the loss is made of, by tap. Masked scores of a question's tokens do not count.

    A score is off by a few units in its last place, so a larger score is off by more. A probability is off by as large
    a share of itself as its score is off in nats. Every gradient is linear in (probability - label).
    """
    return max(1.0, *(scale_of(x[x > MASKED]) for x in scores.values()))


def _pairs(family: Family, field: str) -> list[tuple[str, str]]:
    """A layer's taps, each with another that its record names in ``field``."""
    return [(tap.last_name, other) for tap in family.layer for other in getattr(tap, field)]


def _peers(name: str, family: Family) -> set[str]:
    names = {name}
    for one, other in ((".bias", ".kernel"), (".beta", ".gamma")):
        names |= {x.removesuffix(one) + other for x in names if x.endswith(one)}
    for part, other in _pairs(family, "terms"):
        names |= {re.sub(rf"\.{part}(\.|$)", rf".{other}\1", x) for x in names}
    return names


def _aligned(x: np.ndarray, tap: str, like: str, family: Family) -> np.ndarray:
    """A tap with its axes in the order of those of another tap."""
    places = family.place(tap), family.place(like)
    if places[0] is None or places[1] is None:
        return x
    return x.transpose([places[0].tap.names.index(axis) for axis in places[1].tap.names])


def _row_scale(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(x).mean(axis=-1, keepdims=True))


def _column_scale(x: np.ndarray) -> np.ndarray:
    """Return how large a sum over all axes but the last is if its terms have random signs."""
    return np.sqrt(np.square(x).sum(axis=tuple(range(x.ndim - 1))))
