"""What the values of a checkpoint give away: NaN, Inf, and weights that no training leaves behind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

# Trained LayerNorm scales of BERT-like models lie between about 0 and 3; beyond these something else was read.
GAMMA_RANGE = (-2.0, 10.0)
GAMMA_LEAST_MAXIMUM = 0.02


@dataclass(frozen=True)
class Content:
    """What is known of one weight's values: smallest, largest (NaN where one is NaN), number and sha256."""

    low: float
    high: float
    count: int
    sha256: str


@dataclass(frozen=True)
class Finding:
    """Something about the values that a person should know; a fatal one stops a conversion."""

    kind: str
    weight: str
    text: str
    fatal: bool = False


def extremes(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value, NaN if one is NaN; (inf, -inf) of nothing."""
    if not values.size:
        return float("inf"), float("-inf")
    exact = values if values.dtype.kind in "iub" or values.dtype.itemsize >= 4 else values.astype(np.float32)
    return float(exact.min()), float(exact.max())


def check_contents(contents: Mapping[str, Content]) -> list[Finding]:
    """Return what the values of canonical weights give away, in the order of the weights."""
    found = [finding for name, content in contents.items() for finding in _of_one(name, content)]
    return found + list(_equal_layers(contents))


def _of_one(name: str, content: Content) -> Iterable[Finding]:
    if not content.count:
        return
    if not (np.isfinite(content.low) and np.isfinite(content.high)):
        what = "NaN" if np.isnan(content.low) or np.isnan(content.high) else "Inf"
        yield Finding("nonfinite", name, f"{name} holds {what}", fatal=True)
    elif name.endswith((".kernel", ".embedding")) and content.count > 1 and content.low == content.high:
        kind = "zero" if content.low == 0 else "constant"
        yield Finding(kind, name, f"{name} is {content.low:g} everywhere: it was never trained or not stored")
    elif name.endswith(".gamma"):
        low, high = GAMMA_RANGE
        if content.low < low or content.high > high or content.high < GAMMA_LEAST_MAXIMUM:
            text = f"{name} lies between {content.low:.3g} and {content.high:.3g}, far from a trained LayerNorm's"
            yield Finding("gamma", name, text)


def _equal_layers(contents: Mapping[str, Content]) -> Iterable[Finding]:
    """Layers all of whose kernels are those of an earlier layer."""
    kernels: dict[str, list[str]] = {}
    for name, content in contents.items():
        layer = re.match(r"(.*?\.\d+)\..*\.kernel$", name)
        if layer and content.sha256:  # without checksums nothing tells
            kernels.setdefault(layer[1], []).append(content.sha256)
    first: dict[tuple[str, ...], str] = {}
    for name, digests in kernels.items():
        earlier = first.setdefault(tuple(digests), name)
        if earlier != name:
            yield Finding("equal layers", name, f"{name} has the same kernels as {earlier}")
