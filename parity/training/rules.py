"""The original's three optimizers in NumPy float64, from the facts, as one function each.

Written anew and slowly: nothing here is shared with what it judges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigbird_port.training.settings import Training

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Moment:
    """What one update of one weight takes: the rate, the updates so far, and whether the weight decays.

    powers: of Adam's betas.
    """

    training: Training
    rate: float
    step: int
    decays: bool
    powers: tuple[float, ...] = ()


Update = Callable[[np.ndarray, np.ndarray, Arrays, Moment], tuple[np.ndarray, Arrays]]


def adam_weight_decay(w: np.ndarray, g: np.ndarray, slots: Arrays, at: Moment) -> tuple[np.ndarray, Arrays]:
    """No correction, epsilon outside the root, decay times the rate."""
    own = at.training
    m = own.beta1 * slots["m"] + (1 - own.beta1) * g
    v = own.beta2 * slots["v"] + (1 - own.beta2) * g**2
    u = m / (np.sqrt(v) + own.epsilon)
    if at.decays:
        u = u + own.weight_decay_rate * w
    return w - at.rate * u, {"m": m, "v": v}


def adafactor(w: np.ndarray, g: np.ndarray, slots: Arrays, at: Moment) -> tuple[np.ndarray, Arrays]:
    """Factored wherever there are two axes, clipped at a root mean square of 1, scaled by the weight's."""
    d = 1 - (at.step + 1) ** -0.8
    q = g**2 + 1e-30
    if w.ndim < 2:
        moved = {"v": d * slots["v"] + (1 - d) * q}
        x = g / np.sqrt(moved["v"])
    else:
        row = d * slots["row"] + (1 - d) * q.mean(axis=-1)
        column = d * slots["column"] + (1 - d) * q.mean(axis=-2)
        moved = {"row": row, "column": column}
        x = g / np.sqrt(row / row.mean(axis=-1, keepdims=True))[..., None] / np.sqrt(column)[..., None, :]
    x = x / max(1.0, _rms(x))
    return w - at.rate * max(_rms(w), 1e-3) * x, moved


def adam(w: np.ndarray, g: np.ndarray, slots: Arrays, at: Moment) -> tuple[np.ndarray, Arrays]:
    """TensorFlow's: the rate corrected, epsilon behind it, 1 - beta taken of the float32."""
    own = at.training
    beta1, beta2 = np.float32(own.beta1), np.float32(own.beta2)
    m = float(beta1) * slots["m"] + float(np.float32(1) - beta1) * g
    v = float(beta2) * slots["v"] + float(np.float32(1) - beta2) * g**2
    rate = at.rate * np.sqrt(1 - at.powers[1]) / (1 - at.powers[0])
    return w - rate * m / (np.sqrt(v) + own.epsilon), {"m": m, "v": v}


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


UPDATES: dict[str, Update] = {"AdamWeightDecay": adam_weight_decay, "Adafactor": adafactor, "Adam": adam}
