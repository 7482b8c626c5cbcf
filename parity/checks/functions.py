"""Probes of functions that devices approximate: exp, tanh and 1 / sqrt against float64.

A setting does not say which approximation runs. A fast one has 11 bits (tanh.approx of CUDA) or fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigbird_port.files.casting import float_type
from parity.measure.derived import MEASURED_AS, ratio

Function = Callable[[np.ndarray], np.ndarray]
_POINTS = 1 << 14


@dataclass(frozen=True)
class Probe:
    """A function. exact: in float64. points: where it is asked, float64. worst: on the CPU, float32, in ulp.

    The worst is jax's for each of them, of jax 0.10.2: torch's are 0.56, 0.51 and 1.46.
    """

    exact: Function
    points: np.ndarray
    worst: float


def _spread(least: float, most: float) -> np.ndarray:
    return np.exp(np.linspace(np.log(least), np.log(most), _POINTS))


FUNCTIONS: dict[str, Probe] = {
    # what a softmax asks of it, as far as results are no denormal numbers
    "exp": Probe(np.exp, np.linspace(-87, -1e-6, _POINTS), 1.0),
    "tanh": Probe(np.tanh, np.concatenate([_spread(1e-4, 12), -_spread(1e-4, 12)]), 4.3),
    "rsqrt": Probe(lambda x: 1 / np.sqrt(x), _spread(1e-12, 1e6), 1.7),
}
HALF = 0.6  # ulp of a half, in which a function is float32's, rounded: 0.5, and what float32 was off by
UNSAMPLED = 2.0  # for other releases and processors, as in the factor of the tolerances


def function_error(name: str, function: Function, dtype: str = "float32") -> float:
    """Return the largest error of a function in units in the last place; infinite where it is not finite.

    function: takes and returns float32 [P] that holds numbers of ``dtype``, in which it computes. Results that are no
    normal numbers of it are left out.
    """
    probe, dtype = FUNCTIONS[name], MEASURED_AS.get(dtype, dtype)
    limits = _limits(dtype)
    inside = (np.abs(probe.points) >= limits.tiny) & (np.abs(probe.points) <= limits.max)
    x = probe.points[inside].astype(float_type(dtype)).astype(np.float32)
    exact = probe.exact(x.astype(np.float64))
    normal = (np.abs(exact) >= limits.tiny) & (np.abs(exact) <= limits.max)
    found = np.asarray(function(x), np.float64)
    unit = np.exp2(np.floor(np.log2(np.abs(exact[normal])))) * float(limits.eps)
    error = np.abs(found[normal] - exact[normal]) / unit
    return float(error.max()) if np.isfinite(error).all() else float("inf")


def function_limit(name: str, device: str, dtype: str = "float32") -> float:
    """Return the most that a function may be off by on a device, in units in the last place.

    It is what the tolerances of the device rest on: the CPU's worst, as many times as an operand loses more there.
    """
    dtype = MEASURED_AS.get(dtype, dtype)
    return UNSAMPLED * ratio(device, dtype) * (FUNCTIONS[name].worst if dtype == "float32" else HALF)


def _limits(dtype: str) -> Any:
    """What numbers of a type are like: eps, tiny and max."""
    if dtype != "bfloat16":
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)
