"""Rows from the taps of two witnesses: what is compared with what, and where.

Legend: B batch, L length, N heads, H head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from bigbird_port.families.family import Family
from bigbird_port.families.place import Place
from bigbird_port.families.registry import default_family
from parity.measure.derived import MEASURED_AS, ratio
from parity.measure.metrics import Difference, measure
from parity.measure.rounding import HOPELESS, Rounding
from parity.measure.tolerances import BOTH, Table, Tolerance, tolerance_for
from parity.run.results import ORIGINAL, Error, Part, Row
from parity.witnesses.witness import EXPORTED, TRUTHS, Setting, Taps

_NONE = Tolerance(0.0, 0.0, 1.0, "nothing could be measured", "none")
ROUNDING = "here rounding alone accounts for more, as the reference in inexact arithmetic shows"
_REAL_ONLY = ("golden", "transformers", *EXPORTED)  # what these compute for padding is theirs


@dataclass(frozen=True, eq=False)
class Scene:
    """What a comparison is about. Its two sides are given apart.

    settings: of each witness. real_BL: True on tokens that are no padding. layers: of the encoder. table: of
    tolerances, None for the one that is shipped. steepness: of the loss, where its gradients are compared. family: the
    one that has the taps. rounding: what rounding alone does to the reference; None where there is no reference.
    """

    head: str
    condition: str
    settings: dict[str, Setting]
    real_BL: np.ndarray
    layers: int
    table: Table | None = None
    steepness: float = 1.0
    family: Family = field(default_factory=default_family)
    rounding: Rounding | None = None

    def row(
        self,
        names: tuple[str, str],
        error: Error,
        tap: str,
        sides: tuple[np.ndarray, np.ndarray],
        part: Part | None = None,
        scale: float | np.ndarray | None = None,
    ) -> Row:
        """Measure one pair of arrays; scale: that of the whole tap, where ``sides`` are parts of it.

        Where the pair is beyond the table's tolerance, it is held against what rounding alone accounts for.
        """
        where, pair, tolerance = self.where(names, error, tap, sides[0], part), sides, self.tolerance(names, error, tap)
        if where is not None:
            pair = self.batch_first(tap, sides[0], part), self.batch_first(tap, sides[1], part)
        difference = self.measure(names, error, tap, pair, where, scale)
        if difference.excess > 1 and not difference.problem:
            for most in self.allowed(names, error, tap, part):
                most = most if where is None else self.batch_first(tap, most, part)
                excused = self.measure(names, error, tap, pair, where, scale, most)
                if excused.passed:  # else the table's figures say how far off it is
                    share = float(np.sqrt(np.square(most).mean())) / (difference.scale or 1.0)
                    tolerance = replace(tolerance, rounding=share, reason=f"{tolerance.reason}; {ROUNDING}")
                    difference = excused
                if excused.passed or excused.excess > HOPELESS:
                    break
        return self._row(names, error, tap, part, sides[0].shape, tolerance, difference)

    def allowed(self, names: tuple[str, str], error: Error, tap: str, part: Part | None = None) -> Iterator[np.ndarray]:
        """Yield the largest error of each element of a tap, or of a head of it, that rounding alone accounts for.

        First as a few runs have it, then as many do.
        """
        first = self._allowed(self.rounding, names, error, tap, part) if self.rounding else None
        if self.rounding and first is not None:
            yield first
            surer = self._allowed(self.rounding.surer(), names, error, tap, part)
            if surer is not None:
                yield surer

    def _allowed(
        self, rounding: Rounding, names: tuple[str, str], error: Error, tap: str, part: Part | None
    ) -> np.ndarray | None:
        most = rounding.allowed(error, tap)
        if most is not None and part is not None and part.attention_head is not None:
            most = np.moveaxis(most, self.place(tap).tap.names.index("heads"), 0)[part.attention_head]
        if most is None:
            return None
        own = [self.settings[name] for name in names if name not in TRUTHS]  # each side rounds as its device does
        return most * sum(ratio(one.device, one.dtype) for one in own) if own else most

    def measure(
        self,
        names: tuple[str, str],
        error: Error,
        tap: str,
        sides: tuple[np.ndarray, np.ndarray],
        where: np.ndarray | None,
        scale: float | np.ndarray | None = None,
        allowed: np.ndarray | None = None,
    ) -> Difference:
        """Return the difference of two arrays, both with batch and length first if there is a mask [B, L]."""
        tolerance, dtype = self.tolerance(names, error, tap), self.settings[names[0]].dtype
        place = self.family.place(tap, self.head)  # a gradient of a weight has none
        logits = error != "gradient" and place is not None and place.tap.distribution
        return measure(*sides, tolerance, where, scale=scale, allowed=allowed, dtype=dtype, logits=logits)

    def failed(self, names: tuple[str, str], error: Error, tap: str, problem: str) -> Row:
        """Return a row for what cannot be measured."""
        return self._row(names, error, tap, None, (), _NONE, Difference(problem=problem))

    def tolerance(self, names: tuple[str, str], error: Error, tap: str) -> Tolerance:
        """Return what a pair may differ by: what each side may, by its own dtype and device.

        A truth is off by nothing. The original, where both are truths, is off as float32 on the CPU is.
        """
        own = [self.settings[name] for name in names if name not in TRUTHS] or [Setting()]
        sides = [self._tolerance_of(one, error, tap) for one in own]
        if len(sides) == 1:
            return sides[0]
        if sides[0] == sides[1]:
            reason = f"{sides[0].reason}; twice, as both sides are off that much"
            return replace(sides[0], bound=2 * sides[0].bound, reason=reason)
        return _sum_of(*sides)

    def _tolerance_of(self, own: Setting, error: Error, tap: str) -> Tolerance:
        """What one side may be off by."""
        dtype = MEASURED_AS.get(own.dtype, own.dtype)
        after_encoder = error == "gradient" or self.family.is_after_layers(tap)
        layers = self.layers if after_encoder else None
        return tolerance_for(tap, dtype, own.kind, error, layers, self.table, self.steepness, self.family)

    def where(
        self, names: tuple[str, str], error: Error, tap: str, x: np.ndarray, part: Part | None = None
    ) -> np.ndarray | None:
        """Return which positions count, bool [B, L]; None for all."""
        if error != "called" and not set(names) & set(_REAL_ONLY):
            return None
        return self.real_BL if self.has_positions(tap, x, part) else None

    def place(self, tap: str) -> Place:
        """Return what the family says of a tap; raises ValueError for one that its table does not have."""
        place = self.family.place(tap, self.head)
        if place is None:
            raise ValueError(f"{self.head} has no tap {tap} in the family's table: add it there, with its axes")
        return place

    def axes(self, tap: str, part: Part | None = None) -> tuple[str, ...]:
        """Return the axes of a tap; one attention head of it has no axis of heads."""
        names, is_one = self.place(tap).tap.names, part is not None and part.attention_head is not None
        return tuple(name for name in names if not (is_one and name == "heads"))

    def has_positions(self, tap: str, x: np.ndarray, part: Part | None = None) -> bool:
        """Whether a tap has a number, or several, for each position of each text, as its axes say."""
        names = self.axes(tap, part)
        fits = x.ndim == len(names) and {"batch", "length"} <= set(names)
        return fits and self.batch_first(tap, x, part).shape[:2] == self.real_BL.shape

    def batch_first(self, tap: str, x: np.ndarray, part: Part | None = None) -> np.ndarray:
        """Return a tap with batch and length as its leading axes, where it has them."""
        names = self.axes(tap, part)
        is_whole = x.ndim == len(names) and "length" in names
        return np.moveaxis(x, names.index("length"), 1) if is_whole else x

    def holds(self, names: tuple[str, str], error: Error, tap: str, x: np.ndarray) -> bool:
        """Whether any position of a tap counts."""
        where = self.where(names, error, tap, x)
        return where is None or bool(where.any())

    def _row(
        self,
        names: tuple[str, str],
        error: Error,
        tap: str,
        part: Part | None,
        shape: tuple[int, ...],
        tolerance: Tolerance,
        difference: Difference,
    ) -> Row:
        value, reference = (ORIGINAL if name == "golden" else name for name in names)
        return Row(self.head, self.condition, value, reference, error, tap, part, shape, tolerance, difference)


def _sum_of(one: Tolerance, other: Tolerance) -> Tolerance:
    """What two sides may differ by that round differently: the sum of what each may be off by."""
    bound, worst = one.bound + other.bound, one.worst + other.worst
    return replace(
        one,
        bound=bound,
        worst=worst,
        factor=bound / worst,
        reason=f"the sum of both sides', {one.key}: {one.reason}; {other.key}: {other.reason}",
        key=f"{one.key}{BOTH}{other.key}",
        floor=max(one.floor, other.floor),
        derived=one.derived or other.derived,
    )


def compare(
    scene: Scene,
    names: tuple[str, str],
    error: Error,
    stage: str,
    sides: tuple[Taps, Taps],
    incomplete: tuple[bool, bool] = (False, False),
    part: Part | None = None,
) -> Iterator[Row]:
    """Compare all taps of a stage; a tap that only one side has is a failed row, and so is a stage without any.

    names: of value and reference. incomplete: sides that need not have every tap; only what they have is compared.
    """
    value, reference = sides
    wanted = [*value, *(tap for tap in reference if tap not in value)]  # in the order of the computation
    for side, is_incomplete in zip(sides, incomplete, strict=True):
        wanted = [tap for tap in wanted if tap in side or not is_incomplete]
    if not wanted:
        yield scene.failed(names, error, stage, "nothing to compare")
    for tap in wanted:
        if tap not in value or tap not in reference:
            lacking = names[0] if tap in reference else names[1]
            yield scene.failed(names, error, tap, f"{lacking} has no such tap")
            continue
        pair = value[tap], reference[tap]
        whole = scene.row(names, error, tap, pair, part)
        yield whole
        if error == "accumulated" and scene.place(tap).tap.by_head and pair[0].shape == pair[1].shape:
            axis = scene.place(tap).tap.names.index("heads")
            for n in range(pair[0].shape[axis]):
                heads = np.moveaxis(pair[0], axis, 0)[n], np.moveaxis(pair[1], axis, 0)[n]
                one = replace(part or Part(), attention_head=n)
                scale = None if whole.difference.problem else whole.difference.scale
                yield scene.row(names, error, tap, heads, one, scale)
