"""How far one array is from another.

* **The rule.** An element may differ by ``tolerance * max(scale, floor, |reference|)``. Every element is judged alone,
  so one wrong element is enough to fail. Every figure changes when elements are permuted.
* **The scale.** It is the typical magnitude of the reference: a root mean square over the nonzero elements. An element
  near 0 is a sum of terms of that size, and as uncertain as they are.
* **Outliers.** For the scale, each magnitude is cut at 8 times the median magnitude. That is 5.4 standard deviations,
  so a normal distribution is left alone. Elements that are far larger than the rest (up to half of all) do not raise
  what the rest may differ by. They are measured against their own magnitude.
* **Memory.** Arrays are read in pieces of 2**16 elements. No copy of a whole array is made, whatever its strides and
  dtype.

Legend: P positions (all axes but the last), V scores of a position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.measure.quantiles import Quantiles
from parity.measure.tolerances import Tolerance
from parity.measure.ulp import coarser, ulp_distance

_NAN = float("nan")
_PIECE = 1 << 16  # elements
_OUTLIER = 8.0  # medians
_FEW = 64
_TOP = 5


@dataclass(frozen=True)
class LogitsDifference:
    """The difference of two arrays of scores, seen as distributions over the last axis.

    kl_max, kl_mean: the Kullback-Leibler divergence of the value's distribution from the reference's, in nats: the
        largest and the mean over positions.
    top1, top5: the share of the value's k best that are among the reference's k best. With fewer than 5 scores, k is
        their number.
    flips: how many positions have another best score. Scores that are equal in the reference may be exchanged.
    margin_lost: at the worst flip, how far the reference's best leads over the value's choice, in the reference's
        scores; 0 without flips.
    positions: how many were compared.
    """

    kl_max: float
    kl_mean: float
    top1: float
    top5: float
    flips: int
    margin_lost: float
    positions: int


@dataclass(frozen=True)
class Difference:
    """The difference of two arrays.

    max_abs, mean_abs, median_abs, p99_abs, p999_abs: of the absolute error; quantiles as in quantiles.py.
    scale: of the reference, as at the top of this file.
    relative: max_abs divided by the scale.
    max_ulp, p99_ulp: how many numbers of the coarser dtype lie between an element and its reference.
    cosine_error: 1 - cosine similarity.
    snr_db: the power of the reference divided by the power of the error, in decibels.
    would_pass: the least tolerance that passes.
    excess: would_pass divided by the tolerance. The arrays pass if it is at most 1.
    worst_index: the index of the element that decides would_pass.
    logits: the figures of scores, if they were asked for.
    problem: why no figure counts (nothing compared, shapes differ, NaN or Inf), or None.
    """

    max_abs: float = _NAN
    mean_abs: float = _NAN
    relative: float = _NAN
    cosine_error: float = _NAN
    worst_index: tuple[int, ...] = ()
    excess: float = float("inf")
    problem: str | None = None
    median_abs: float = _NAN
    p99_abs: float = _NAN
    p999_abs: float = _NAN
    max_ulp: float = _NAN
    p99_ulp: float = _NAN
    snr_db: float = _NAN
    scale: float = _NAN
    would_pass: float = float("inf")
    logits: LogitsDifference | None = None

    @property
    def passed(self) -> bool:
        """Whether every element is within the tolerance, and there is no problem."""
        return self.problem is None and self.excess <= 1


def measure(
    value: np.ndarray,
    reference: np.ndarray,
    tolerance: float | Tolerance,
    where: np.ndarray | None = None,
    *,
    scale: float | np.ndarray | None = None,
    allowed: np.ndarray | None = None,
    dtype: str | None = None,
    logits: bool = False,
) -> Difference:
    """Compare ``value`` with ``reference`` under ``tolerance`` (a bound, or a Tolerance with its floor).

    where: bool mask over the leading axes, true for what to compare; None compares everything.
    scale: replaces the reference's own scale. It broadcasts over the elements, and Difference.scale is its largest.
    allowed: an error that each element may have whatever the tolerance says (parity/measure/rounding.py).
    dtype: name of the dtype in which ``value`` was computed, if ``value`` is kept in a wider one; for the ulp figures.
    logits: whether the last axis holds scores, to be measured as distributions too.

    Raises ValueError for a tolerance or scale that is negative or NaN, and for a scale that is infinite.
    """
    bound, floor = (tolerance.bound, tolerance.floor) if isinstance(tolerance, Tolerance) else (tolerance, 0.0)
    if not bound >= 0 or not (scale is None or ((np.asarray(scale) >= 0) & np.isfinite(scale)).all()):
        raise ValueError(f"tolerance is {bound} and scale {scale}, expected numbers >= 0")
    value, reference = np.asarray(value), np.asarray(reference)
    if value.shape != reference.shape:
        return Difference(problem=f"shapes differ: {list(value.shape)} and {list(reference.shape)}")
    if not value.size or (where is not None and not where.any()):
        return Difference(problem="nothing to compare")
    pair = _Pair(value, reference, where)
    peak, bad = pair.peak()
    if bad is not None:
        return Difference(problem="NaN or Inf", worst_index=bad)
    scales = np.asarray(scale_of(reference, where) if scale is None else scale, np.float64)
    own_scale = float(scales.max())
    scales = np.maximum(scales, floor)
    if allowed is not None and bound > 0:
        scales = np.maximum(scales, allowed / bound)
    figures = _figures(pair, scales, dtype or coarser(value.dtype, reference.dtype), peak)
    return Difference(
        **figures,
        relative=_over(figures["max_abs"], own_scale),
        excess=_over(figures["would_pass"], bound),
        scale=own_scale,
        logits=_measure_logits(value, reference, where) if logits else None,
    )


def scale_of(reference: np.ndarray, where: np.ndarray | None = None) -> float:
    """Return the typical magnitude of an array: root mean square of its nonzero elements, each cut at 8 medians.

    It is 0 if there are no such elements. Of fewer than 64 elements (the class scores of a few texts) half may be near
    0 by chance, so there the third quartile takes the place of the median. where: as for measure.
    """
    reference = np.asarray(reference)
    pair = _Pair(reference, reference, where)
    magnitudes = Quantiles(reference.size)
    for _, a, _ in pair:
        magnitudes.add(np.abs(a[a != 0]))
    if not magnitudes.count:
        return 0.0
    median = magnitudes.at(0.5 if magnitudes.count >= _FEW else 0.75)
    total = sum(float(np.square(np.minimum(np.abs(a) / median, _OUTLIER)).sum()) for _, a, _ in pair)
    return median * float(np.sqrt(total / magnitudes.count))


class _Pair:
    """Two arrays of one shape, read together in pieces of float64."""

    def __init__(self, value: np.ndarray, reference: np.ndarray, where: np.ndarray | None) -> None:
        self.arrays = (value, reference)
        self.shape = value.shape
        mask = np.ones((), bool) if where is None else where.reshape(where.shape + (1,) * (value.ndim - where.ndim))
        self.mask = np.broadcast_to(mask, value.shape)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield flat positions and the elements there, of what is compared."""
        pieces = np.nditer(
            [*self.arrays, self.mask],
            flags=["external_loop", "buffered"],
            op_dtypes=[np.float64, np.float64, np.bool_],
            casting="unsafe",
            order="C",
            buffersize=_PIECE,
        )
        start = 0
        for a, b, mask in pieces:
            if mask.all():
                yield np.arange(start, start + len(mask)), a, b  # buffers, good until the next piece
            elif mask.any():
                at = np.flatnonzero(mask)
                yield start + at, a[at], b[at]
            start += len(mask)

    def index(self, flat: int) -> tuple[int, ...]:
        """The index of a flat position."""
        return tuple(int(i) for i in np.unravel_index(flat, self.shape))

    def peak(self) -> tuple[float, tuple[int, ...] | None]:
        """The largest magnitude of either, and where the first NaN or Inf is."""
        peak = 0.0
        for at, a, b in self:
            largest = np.maximum(np.abs(a), np.abs(b))  # NaN if either is
            peak = max(peak, top := float(largest.max()))
            if not np.isfinite(top):
                return top, self.index(int(at[(~np.isfinite(largest)).argmax()]))
        return peak, None


def _figures(pair: _Pair, scales: np.ndarray, dtype: str, peak: float) -> dict[str, Any]:
    """The figures that are taken element by element; ``scales`` broadcasts over the elements."""
    size, uniform = pair.mask.size, scales.size == 1
    scales = scales.reshape(1) if uniform else np.broadcast_to(scales, pair.shape)
    errors, ulps = Quantiles(size), Quantiles(size)
    would_pass, worst, total = -1.0, 0, 0.0
    power = _Powers(peak)
    for at, a, b in pair:
        error = np.abs(a - b)
        scale = scales if uniform else scales[np.unravel_index(at, pair.shape)]
        ratio = _ratio(error, np.maximum(scale, np.abs(b)))
        i = int(ratio.argmax())
        if ratio[i] > would_pass:
            would_pass, worst = float(ratio[i]), int(at[i])
        errors.add(error)
        ulps.add(ulp_distance(a, b, dtype))
        total += float(error.sum())
        power.add(a, b)
    return {
        "max_abs": errors.max,
        "mean_abs": total / errors.count,
        "median_abs": errors.at(0.5),
        "p99_abs": errors.at(0.99),
        "p999_abs": errors.at(0.999),
        "max_ulp": ulps.max,
        "p99_ulp": ulps.at(0.99),
        "cosine_error": power.cosine_error,
        "snr_db": power.snr_db,
        "would_pass": would_pass,
        "worst_index": pair.index(worst),
    }


class _Powers:
    """Figures from sums of squares; everything is divided by the largest magnitude first, so that nothing overflows."""

    def __init__(self, peak: float) -> None:
        self._peak = peak or 1.0
        self._sums = np.zeros(4)  # of the squares of a, b and a - b, and of the difference of the first two

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Add elements."""
        a, b = a / self._peak, b / self._peak
        error = a - b
        pairs = ((a, a), (b, b), (error, error), (error, a + b))
        self._sums += [np.einsum("i,i", *pair) for pair in pairs]  # not BLAS, whose threads cost more than they bring

    @property
    def snr_db(self) -> float:
        """Power of b over that of the error."""
        _, power, error, _ = self._sums
        with np.errstate(divide="ignore"):
            return float(10 * (np.log10(power) - np.log10(error))) if power or error else float("inf")

    @property
    def cosine_error(self) -> float:
        """1 - cosine similarity, by |a - b|^2 = (|a| - |b|)^2 + 2 |a| |b| (1 - cos), whose terms are differences."""
        norm_a, norm_b = np.sqrt(self._sums[:2])
        if norm_a == 0 or norm_b == 0:
            return 0.0 if norm_a == norm_b else 1.0
        longer = self._sums[3] / (norm_a + norm_b)
        return float(max(0.0, self._sums[2] - longer * longer) / (2 * norm_a * norm_b))


def _ratio(error: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """error / allowed; where nothing is allowed, no error is 0 and any other infinite."""
    ratio = np.where(error > 0, np.inf, 0.0)
    return np.divide(error, allowed, out=ratio, where=allowed > 0)


def _over(x: float, y: float) -> float:
    return float(_ratio(np.array(x), np.array(y)))


def _measure_logits(value: np.ndarray, reference: np.ndarray, where: np.ndarray | None) -> LogitsDifference:
    """Compare scores position by position, a few positions at a time."""
    V = value.shape[-1] if value.ndim else 1
    shape = value.shape[:-1] if value.ndim else ()
    mask = np.ones((), bool) if where is None else where.reshape(where.shape + (1,) * (len(shape) - where.ndim))
    positions = np.flatnonzero(np.broadcast_to(mask, shape))
    divergences, shares, margins = [], [], []
    step = max(1, 4 * _PIECE // V)
    for i in range(0, len(positions), step):
        index = np.unravel_index(positions[i : i + step], shape) if shape else ...
        a_PV, b_PV = (x[index].astype(np.float64).reshape(-1, V) for x in (value, reference))
        divergences.append(_divergence(a_PV, b_PV))
        shares.append(_shares(a_PV, b_PV, min(_TOP, V)))
        margins.append(b_PV.max(axis=1) - np.take_along_axis(b_PV, a_PV.argmax(axis=1)[:, None], axis=1)[:, 0])
    kl_P, top_2P, margin_P = np.concatenate(divergences), np.concatenate(shares, axis=1), np.concatenate(margins)
    return LogitsDifference(
        kl_max=float(kl_P.max()),
        kl_mean=float(kl_P.mean()),
        top1=float(top_2P[0].mean()),
        top5=float(top_2P[1].mean()),
        flips=int((margin_P > 0).sum()),
        margin_lost=float(margin_P.max()),
        positions=len(kl_P),
    )


def _divergence(a_PV: np.ndarray, b_PV: np.ndarray) -> np.ndarray:
    """KL(reference, value) of each position, from terms p (exp(d) - 1 - d) >= 0, which do not cancel."""
    log_q, log_p = _log_softmax(a_PV), _log_softmax(b_PV)
    d = np.minimum(log_q - log_p, 700.0)  # exp stays finite; p is 0 there
    small = np.abs(d) < 1e-5
    terms = np.where(small, d * d * (0.5 + d / 6), np.expm1(d) - d)
    return (np.exp(log_p) * terms).sum(axis=1)


def _log_softmax(x_PV: np.ndarray) -> np.ndarray:
    shifted = x_PV - x_PV.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _shares(a_PV: np.ndarray, b_PV: np.ndarray, k: int) -> np.ndarray:
    """The share of the value's first one, and first k, that are among as many first ones of the reference; [2, P]."""
    chosen_Pk, best_Pk = _first(a_PV, k), np.take_along_axis(b_PV, _first(b_PV, k), axis=1)
    reached_Pk = np.take_along_axis(b_PV, chosen_Pk, axis=1)
    return np.array([reached_Pk[:, 0] >= best_Pk[:, 0], (reached_Pk >= best_Pk[:, -1:]).mean(axis=1)])


def _first(x_PV: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest of each row are, [P, k]; one after the other, which is faster than sorting for so few."""
    left_PV, rows_P = x_PV.copy(), np.arange(len(x_PV))
    found = []
    for _ in range(k):
        found.append(left_PV.argmax(axis=1))
        left_PV[rows_P, found[-1]] = -np.inf
    return np.stack(found, axis=1)
