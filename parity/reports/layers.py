"""One row a layer and tap, for every head: the largest error of all that was compared there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from parity.measure.stages import EMBEDDINGS, HEAD, Stage, stage_of
from parity.reports.report import by_head, worst_of
from parity.run.results import Result, Row


@dataclass(frozen=True, eq=False)
class LayerRow:
    """A tap of a head under a condition. stage: its layer's index, or EMBEDDINGS, or HEAD. worst: of its rows."""

    head: str
    condition: str
    stage: Stage
    tap: str
    rows: tuple[Row, ...]

    @property
    def worst(self) -> Row:
        """The row whose error is largest in relation to its tolerance."""
        return worst_of(self.rows)

    @property
    def passed(self) -> bool:
        """Whether all rows passed."""
        return all(row.passed for row in self.rows)


def layer_rows(result: Result) -> Iterator[LayerRow]:
    """Yield the rows of every head and condition in the order of the computation; shared ones under each head."""
    for head, condition, rows in by_head(result):
        own = list(_of_head(head, condition, rows))
        yield from sorted(own, key=lambda row: _place(row.stage))


def _of_head(head: str, condition: str, rows: Iterable[Row]) -> Iterator[LayerRow]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.tap, []).append(row)
    for tap, group in found.items():
        yield LayerRow(head, condition, stage_of(tap), tap, tuple(group))


def _place(stage: Stage) -> float:
    return {EMBEDDINGS: -1.0, HEAD: float("inf")}[stage] if isinstance(stage, str) else float(stage)
