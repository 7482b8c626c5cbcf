"""Dense layers, LayerNorm and activations in float64 NumPy, each taken by its module's canonical name.

Weights keep the precision that they come in; they are widened where they are used.

Legend: R rows (all leading axes), D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from parity.reference.rounding import lossy, lossy_as

Weights = Mapping[str, np.ndarray]
_ROWS = 256  # rows a chunk: what an activation keeps aside stays small


def dense(weights: Weights, module: str, x: np.ndarray) -> np.ndarray:
    """Return x @ kernel + bias in a new array; a module without a bias (use_bias False) has none to add."""
    kernel, n = weights[f"{module}.kernel"].astype(np.float64, copy=False), x.shape[-1]
    y: np.ndarray = np.matmul(lossy(x, n), lossy(kernel, n))
    if f"{module}.bias" in weights:
        y += lossy(weights[f"{module}.bias"])
    return lossy(y)


def layer_norm(weights: Weights, module: str, x: np.ndarray, eps: float) -> np.ndarray:
    """Return LayerNorm(x) over the last axis (biased variance) in a new array."""
    y, deviation = standardise(x, eps)
    y /= lossy(deviation)
    y *= lossy(weights[f"{module}.gamma"])
    y += lossy(weights[f"{module}.beta"])
    return lossy(y)


def standardise(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x less its mean, and its standard deviation [..., 1] with ``eps`` added to the variance."""
    x = lossy(x)
    centred = x - lossy(x.mean(axis=-1, keepdims=True))
    variance = np.einsum("...d,...d->...", centred, centred)[..., None] / x.shape[-1]
    return centred, np.sqrt(variance + eps)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, written into ``scores``; a row needs a finite score."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


class Activation(NamedTuple):
    """An activation and its derivative, both of the activation's input."""

    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]


def activate(name: str, x: np.ndarray) -> np.ndarray:
    """Return the activation of ``x``, which is overwritten."""
    rows = x.reshape(-1, x.shape[-1])
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        # 1 + erf(x) and 1 + tanh(x) lose a unit of 1, which is multiplied by x
        rows[start : start + _ROWS] = lossy_as(ACTIVATIONS[name].value(some), some)
    return rows.reshape(x.shape)


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel()), np.float64, x.size)
    return (1 + erf.reshape(x.shape)) / 2


def _normal_pdf(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)


_CUBIC = 0.044715
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _gelu_new_tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(math.sqrt(2 / math.pi) * (x + _CUBIC * x * x * x))


def _gelu_new_slope(x: np.ndarray) -> np.ndarray:
    t = _gelu_new_tanh(x)
    inner = math.sqrt(2 / math.pi) * (1 + 3 * _CUBIC * x * x)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner


# "gelu_new" is what the original calls "gelu"; "gelu" is exact, as in transformers.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(
        lambda x: x * _normal_cdf(x),
        lambda x: _normal_cdf(x) + x * _normal_pdf(x),
    ),
    "gelu_new": Activation(lambda x: 0.5 * x * (1 + _gelu_new_tanh(x)), _gelu_new_slope),
    "relu": Activation(lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(np.float64)),
    "selu": Activation(
        lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
        lambda x: _SELU_SCALE * np.where(x > 0, 1, _SELU_ALPHA * np.exp(np.minimum(x, 0))),
    ),
    "tanh": Activation(np.tanh, lambda x: 1 - np.square(np.tanh(x))),
    "linear": Activation(lambda x: x, np.ones_like),
}
