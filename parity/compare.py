"""Rows from the taps of two witnesses: what is compared with what, and where.

Legend: B batch, L length, N heads, H head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from parity.metrics import Difference, measure
from parity.results import Error, Part, Row
from parity.tolerances import FLOAT32_CPU, Tolerance
from parity.witness import Setting, Taps

_HEADS_FIRST = (".query", ".key", ".value")  # [B, N, L, H]
_REAL_ONLY = ("golden", "transformers")  # what these compute for padding is theirs


@dataclass(frozen=True, eq=False)
class Scene:
    """What a comparison is about, beside its two sides.

    settings: of each witness. real_BL: True on tokens that are no padding. shared_by: as in Row.
    """

    head: str
    condition: str
    settings: dict[str, Setting]
    real_BL: np.ndarray
    shared_by: tuple[str, ...] = ()

    def row(
        self, names: tuple[str, str], error: Error, tap: str, part: Part | None, sides: tuple[np.ndarray, np.ndarray]
    ) -> Row:
        """Measure one pair of arrays."""
        tolerance = self.tolerance(names, error, tap)
        value, reference = sides
        where = None
        if set(names) & set(_REAL_ONLY):
            value, reference, where = self.real(tap, value), self.real(tap, reference), self.real_mask(tap, value)
        difference = measure(value, reference, tolerance.bound, where)
        return self._row(names, error, tap, part, value.shape, tolerance, difference)

    def failed(self, names: tuple[str, str], error: Error, tap: str, problem: str) -> Row:
        """Return a row for what cannot be measured."""
        return self._row(names, error, tap, None, (), self.tolerance(names, error, tap), Difference(problem=problem))

    def tolerance(self, names: tuple[str, str], error: Error, tap: str) -> Tolerance:
        """Return what the value may differ by."""
        return FLOAT32_CPU

    def real(self, tap: str, x: np.ndarray) -> np.ndarray:
        """Return ``x`` with batch and length as its leading axes, where it has them."""
        return x.swapaxes(1, 2) if tap.endswith(_HEADS_FIRST) and x.ndim == 4 else x

    def real_mask(self, tap: str, x: np.ndarray) -> np.ndarray | None:
        """Return which positions count, None for all."""
        x = self.real(tap, x)
        return self.real_BL if x.shape[:2] == self.real_BL.shape else None

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
        return Row(
            *(self.head, self.condition, *names, error, tap, part, shape, tolerance, difference),
            shared_by=self.shared_by,
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
    wanted = list(reference) if incomplete[1] else [*reference, *(tap for tap in value if tap not in reference)]
    if incomplete[0]:
        wanted = [tap for tap in wanted if tap in value]
    if not wanted:
        yield scene.failed(names, error, stage, "nothing to compare")
    for tap in wanted:
        if tap not in value or tap not in reference:
            lacking = names[0] if tap in reference else names[1]
            yield scene.failed(names, error, tap, f"{lacking} has no such tap")
            continue
        pair = value[tap], reference[tap]
        yield scene.row(names, error, tap, part, pair)
        if tap.endswith(".context") and error == "accumulated" and pair[0].shape == pair[1].shape:
            for n in range(pair[0].shape[2]):
                heads = pair[0][:, :, n], pair[1][:, :, n]
                yield scene.row(names, error, tap, replace(part or Part(), attention_head=n), heads)
