"""How far one array is from another; every figure here changes when elements are permuted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """The difference of two arrays.

    max_abs, mean_abs: of the absolute error. relative: max_abs over the reference's largest magnitude.
    cosine_error: 1 - cosine similarity. worst_index: where the error is largest against what is allowed.
    excess: the largest error over what is allowed at its element; at most 1 passes. problem: why no figure counts
    (nothing compared, shapes differ, NaN or Inf), else None.
    """

    max_abs: float = float("nan")
    mean_abs: float = float("nan")
    relative: float = float("nan")
    cosine_error: float = float("nan")
    worst_index: tuple[int, ...] = ()
    excess: float = float("inf")
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether figures count and every element is within what is allowed."""
        return self.problem is None and self.excess <= 1


def measure(value: np.ndarray, reference: np.ndarray, tolerance: float, where: np.ndarray | None = None) -> Difference:
    """Compare ``value`` with ``reference``; an element may differ by tolerance * max(1, |reference|).

    where: bool mask over the leading axes of what to compare; None compares everything.
    """
    if value.shape != reference.shape:
        return Difference(problem=f"shapes differ: {list(value.shape)} and {list(reference.shape)}")
    a, b = value.astype(np.float64), reference.astype(np.float64)
    compared = np.ones(a.shape, bool)
    if where is not None:
        compared &= where.reshape(where.shape + (1,) * (a.ndim - where.ndim))
    if not compared.any():
        return Difference(problem="nothing to compare")
    if not (np.isfinite(a[compared]).all() and np.isfinite(b[compared]).all()):
        return Difference(problem="NaN or Inf", worst_index=_first(compared & ~(np.isfinite(a) & np.isfinite(b))))
    error = np.where(compared, np.abs(a - b), 0.0)
    excess = error / (tolerance * np.maximum(1.0, np.abs(b)))
    worst = np.unravel_index(int(excess.argmax()), excess.shape)
    a, b = a[compared], b[compared]
    scale = np.abs(b).max()
    return Difference(
        max_abs=float(error.max()),
        mean_abs=float(error[compared].mean()),
        relative=float(error.max() / scale) if scale else float(error.max()),
        cosine_error=_cosine_error(a, b),
        worst_index=tuple(int(i) for i in worst),
        excess=float(excess.max()),
    )


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _cosine_error(a: np.ndarray, b: np.ndarray) -> float:
    """1 - cosine similarity, computed from the difference of unit vectors, which does not cancel."""
    norm_a, norm_b = np.linalg.norm(a), np.linalg.norm(b)
    if norm_a == 0 or norm_b == 0:
        return 0.0 if norm_a == norm_b else 1.0
    return float(np.square(a / norm_a - b / norm_b).sum() / 2)
