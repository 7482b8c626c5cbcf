"""Error by layer: one curve for each pair of witnesses, on a logarithmic scale, with the tolerance.

A stage is the embeddings, a layer, or what comes after the layers. Its point is its worst row, the one whose error is
largest in relation to its tolerance, so that a point above the tolerance drawn beside it is a failed row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from parity.measure.stages import EMBEDDINGS, HEAD, Stage, stage_of
from parity.reports.report import figure, pair, worst_of
from parity.reports.svg import Element, add, hint, limit, picture
from parity.run.results import Row

# Who is measured has a colour (class) and a marker, against whom a dash.
MARKERS = {"reference": "diamond", "torch": "circle", "flax": "square", "transformers": "triangle"}
DASHES = {"golden": "", "original": "", "reference": "7 3", "torch": "2 3"}
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 52, 16, 30, 34, 270
_WIDTH, _NARROWEST, _WIDEST = 440, 28, 90  # of all stages, and of one
_MAX_DECADES = 14


@dataclass(frozen=True, eq=False)
class Series:
    """The worst row of each stage for one pair of witnesses."""

    value: str
    reference: str
    worst: dict[Stage, Row]

    @property
    def name(self) -> str:
        """Which witness was measured against which."""
        return f"{self.value} against {self.reference}"

    @property
    def bounds(self) -> tuple[tuple[Stage, float], ...]:
        """The tolerance of each stage's worst row."""
        return tuple((stage, row.tolerance.bound) for stage, row in self.worst.items())


@dataclass(frozen=True, eq=False)
class Curves:
    """All series of one head, condition and kind of error; sources: the other heads whose layers stand for its own."""

    head: str
    sources: tuple[str, ...]
    condition: str
    error: str
    series: Sequence[Series]

    @cached_property
    def stages(self) -> list[Stage]:
        """Every stage that a series has, in order."""
        found = {stage for series in self.series for stage in series.worst}
        layers: list[Stage] = sorted(stage for stage in found if isinstance(stage, int))
        first: list[Stage] = [EMBEDDINGS] if EMBEDDINGS in found else []
        return first + layers + ([HEAD] if HEAD in found else [])


def curves(head: str, condition: str, rows: Iterable[Row]) -> list[Curves]:
    """Group the rows that stand for a head by kind of error and pair; kinds that no layer has are left out."""
    found: dict[str, dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        found.setdefault(row.error, {}).setdefault((row.value, row.reference), []).append(row)
    all_curves = []
    for error, pairs in found.items():
        own = [row for group in pairs.values() for row in group]
        sources = tuple(dict.fromkeys(row.head for row in own if row.head != head))
        if any(isinstance(stage_of(row.tap), int) for row in own):
            series = [Series(*pair, _worst(group)) for pair, group in pairs.items()]
            all_curves.append(Curves(head, sources, condition, error, series))
    return all_curves


def _worst(rows: Iterable[Row]) -> dict[Stage, Row]:
    stages: dict[Stage, list[Row]] = {}
    for row in rows:
        stages.setdefault(stage_of(row.tap), []).append(row)
    return {stage: worst_of(own) for stage, own in stages.items()}


def draw(curves: Curves, name: str) -> Element:
    """Return the picture."""
    axes = _Axes(curves)
    title = f"{curves.head}, {curves.condition}: {curves.error} error by layer"
    root = picture(name, axes.width, _HEIGHT, title, _describe(curves))
    limit(root, axes.width)
    axes.draw(root)
    alike: dict[tuple[tuple[Stage, float], ...], list[Series]] = {}
    for series in curves.series:
        alike.setdefault(series.bounds, []).append(series)
    for bounds, members in alike.items():
        points = [(axes.x(stage), axes.y(bound)) for stage, bound in bounds]
        path = " ".join(f"M{x - axes.step / 2:.1f} {y:.1f}h{axes.step:.1f}" for x, y in points)
        line = add(root, "path", d=path, class_="tolerance", stroke_dasharray=_dash(members[0]))
        hint(line, f"tolerance of {', '.join(series.name for series in members)}")
    for series in curves.series:
        _draw_series(root, series, axes)
    return root


class _Axes:
    """The places of stages and errors in the picture."""

    def __init__(self, curves: Curves) -> None:
        self.stages = curves.stages
        self.step = min(max(_WIDTH / len(self.stages), _NARROWEST), _WIDEST)
        self.width = _LEFT + self.step * len(self.stages) + _RIGHT
        rows = [row for series in curves.series for row in series.worst.values()]
        values = [row.difference.would_pass for row in rows] + [row.tolerance.bound for row in rows]
        logs = [math.log10(x) for x in values if 0 < x < math.inf] or [-6.0, -5.0]
        self.high = math.floor(max(logs)) + 1
        self.low = max(math.floor(min(logs)), self.high - _MAX_DECADES)

    def x(self, stage: Stage) -> float:
        return _LEFT + self.step * (self.stages.index(stage) + 0.5)

    def y(self, error: float) -> float:
        """Return the height of an error. An error of 0 stands at the bottom, NaN at the top."""
        log = math.log10(error) if 0 < error < math.inf else self.high if error else self.low
        share = (self.high - max(log, self.low)) / (self.high - self.low)
        return _TOP + share * (_HEIGHT - _TOP - _BOTTOM)

    def draw(self, root: Element) -> None:
        right = self.width - _RIGHT
        for decade in range(self.low, self.high + 1):
            y = self.y(10.0**decade)
            add(root, "path", d=f"M{_LEFT} {y:.1f}H{right}", class_="grid")
            add(root, "text", f"1e{decade:+03d}", x=_LEFT - 6, y=y + 4, text_anchor="end")
        for stage in self.stages:
            text = {EMBEDDINGS: "emb."}.get(str(stage), str(stage))
            add(root, "text", text, x=self.x(stage), y=_HEIGHT - _BOTTOM + 16, text_anchor="middle")
        add(root, "text", "layer", x=(_LEFT + right) / 2, y=_HEIGHT - 3, text_anchor="middle")
        add(root, "text", "error, relative to the reference", x=4, y=14)


def _draw_series(root: Element, series: Series, axes: _Axes) -> None:
    group = add(root, "g", class_=witness_class(series.value))
    points = [(stage, axes.x(stage), axes.y(series.worst[stage].difference.would_pass)) for stage in axes.stages
              if stage in series.worst]  # fmt: skip
    line = " ".join(f"{x:.1f},{y:.1f}" for _, x, y in points)
    add(group, "polyline", points=line, class_="line", stroke_dasharray=_dash(series))
    for stage, x, y in points:
        row = series.worst[stage]
        marker = add(group, "path", d=marker_path(series.value, x, y), class_="marker" if row.passed else "marker off")
        if not row.passed:
            add(group, "circle", cx=x, cy=y, r=8, class_="ring")
        hint(marker, f"{pair(row)}, {row.place}: {said(row)}")


def marker_path(witness: str, x: float, y: float) -> str:
    """Return the outline of a witness's marker around a point."""
    return {
        "circle": f"M{x - 3.5:.1f} {y:.1f}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        "square": f"M{x - 3:.1f} {y - 3:.1f}h6v6h-6z",
        "diamond": f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
        "triangle": f"M{x:.1f} {y - 4.5:.1f}l4.5 8h-9z",
    }[MARKERS.get(witness, "circle")]


def legend(series: Series, name: str) -> Element:
    """Return the sign of a series, for the legend beside the picture."""
    root = picture(name, 44, 14, series.name, "the sign of this curve")
    group = add(root, "g", class_=witness_class(series.value))
    add(group, "path", d="M2 7H42", class_="line", stroke_dasharray=_dash(series))
    add(group, "path", d=marker_path(series.value, 22, 7), class_="marker")
    return root


def _dash(series: Series) -> str:
    return DASHES.get(series.reference, "1 4")


def witness_class(name: str) -> str:
    """Return the class whose colour a witness has."""
    return f"w-{name}" if name in MARKERS else "w-other"


def said(row: Row) -> str:
    """Return an error and its tolerance as text, or why there is no error."""
    found = row.difference.problem or f"error {figure(row.difference.would_pass)}"
    return f"{found}, tolerance {figure(row.tolerance.bound)}, {'passed' if row.passed else 'FAILED'}"


def _describe(curves: Curves) -> str:
    worst = [worst_of(series.worst.values()) for series in curves.series]
    return "Worst of each curve: " + "; ".join(f"{pair(row)} at {row.place}, {said(row)}" for row in worst)
