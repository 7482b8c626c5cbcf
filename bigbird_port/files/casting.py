"""Changes of number type, with what they cost: the largest rounding of each weight. Overflow is an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DTYPES = ("float32", "bfloat16", "float16")


def float_type(name: str) -> np.dtype:
    """Return NumPy's type for a name in DTYPES."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def is_float(dtype: np.dtype | None) -> bool:
    """Return whether a type holds real numbers. bfloat16 does, although NumPy has no kind of its own for it."""
    return dtype is not None and (dtype.kind == "f" or dtype.name == "bfloat16")


@dataclass(frozen=True)
class Rounding:
    """The largest absolute rounding error when a weight was cast, and the value that was rounded so."""

    error: float
    value: float

    def worse(self, other: Rounding) -> Rounding:
        """Return the larger of two roundings."""
        return self if self.error >= other.error else other


EXACT = Rounding(0.0, 0.0)


def cast(values: np.ndarray, dtype: np.dtype, name: str) -> tuple[np.ndarray, Rounding]:
    """Return ``values`` as ``dtype``, and the largest rounding.

    name: what to call the weight in an error. Raises ValueError if a finite value overflows.
    """
    if values.dtype == dtype:
        return values, EXACT
    with np.errstate(over="ignore", invalid="ignore"):  # found below
        result = values.astype(dtype)
    if np.can_cast(values.dtype, dtype) or not values.size:
        return result, EXACT
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(result.astype(np.float64) - wide)
    overflowing = np.isinf(error) & np.isfinite(wide)
    if overflowing.any():
        value = float(wide[overflowing].flat[0])
        raise ValueError(f"{name} holds {value:.6g}, which is too large for {dtype.name}: choose a wider --dtype")
    error = np.where(np.isfinite(wide), error, 0.0)  # NaN and Inf stay what they are
    worst = int(error.argmax())
    return result, Rounding(float(error.flat[worst]), float(wide.flat[worst]))
