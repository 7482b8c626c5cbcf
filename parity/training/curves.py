"""The differences of a training run over its steps: as lines of text, and as curves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from parity.reports.curves import witness_class
from parity.reports.report import figure
from parity.reports.svg import Element, add, hint, picture
from parity.run.results import Result, Row

# What is told apart: the beginning of a tap -> its name for people.
GROUPS = {
    "loss": "loss",
    "learning": "rate",
    "gradient": "norm",
    "after": "weights",
    "slots": "slots",
    "drift": "drift",
}
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 480, 260, 56, 460, 30, 14
_LOWEST, _HIGHEST = -6, 3  # powers of ten of what is allowed
_DASHES = {"loss": "", "learning": "1 4", "gradient": "2 3", "after": "7 3", "slots": "9 2 2 2", "drift": "4 4"}


@dataclass(frozen=True)
class Curve:
    """The worst row of a group behind each update, for one pair of witnesses."""

    group: str
    value: str
    reference: str
    rows: tuple[Row, ...]

    @property
    def by_step(self) -> dict[str, Row]:
        """The rows by the condition's name: what the original did not keep is not there."""
        return {row.condition: row for row in self.rows}

    @property
    def name(self) -> str:
        """What it is of, for people."""
        return f"{self.value} against {self.reference}: {GROUPS[self.group]}"


def group_of(tap: str) -> str:
    """What a tap belongs to."""
    first = tap.partition(" ")[0].partition(".")[0]
    return "slots" if first == "after" and "/" in tap else first


def curves(result: Result) -> list[Curve]:
    """Return the curves of every pair and group, in the order of GROUPS."""
    worst: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in result.rows:
        found = worst.setdefault((row.value, row.reference, group_of(row.tap)), {})
        if row.condition not in found or row.difference.excess > found[row.condition].difference.excess:
            found[row.condition] = row
    order = list(GROUPS)
    pairs = sorted(worst.items(), key=lambda item: (item[0][:2], order.index(item[0][2])))
    return [Curve(key[2], key[0], key[1], tuple(rows.values())) for key, rows in pairs]


def steps_table(result: Result) -> Iterator[str]:
    """Yield a line for every curve: its error behind each update, and the worst place."""
    steps = [condition.name for condition in result.conditions]
    yield f"{'behind':>36}  " + "  ".join(f"{step:>8}" for step in steps)
    for curve in curves(result):
        found = curve.by_step
        cells = (figure(found[step].difference.would_pass) if step in found else "" for step in steps)
        values = "  ".join(f"{cell:>8}" for cell in cells)
        worst = _worst(curve)
        mark = "" if worst.passed else "  OFF"
        yield f"{curve.name:>36}  {values}  worst {worst.tap}, {worst.difference.excess:.2g} of what is allowed{mark}"


def growth_picture(found: list[Curve], steps: list[str], name: str) -> Element:
    """Return all curves over the steps: errors as parts of what is allowed, on a logarithmic scale."""
    title = "Differences over the steps, as parts of what is allowed"
    said = "; ".join(f"{curve.name}: at most {_worst(curve).difference.excess:.2g}" for curve in found)
    root = picture(name, _WIDTH, _HEIGHT, title, said)
    count = len(steps)

    def place(i: int, excess: float) -> tuple[float, float]:
        log = math.log10(excess) if 0 < excess < math.inf else _HIGHEST if excess else _LOWEST
        share = (_HIGHEST - min(max(log, _LOWEST), _HIGHEST)) / (_HIGHEST - _LOWEST)
        return _LEFT + (_RIGHT - _LEFT) * i / max(count - 1, 1), _TOP + share * (_HEIGHT - _TOP - _BOTTOM)

    for decade in range(_LOWEST, _HIGHEST + 1):
        _, y = place(0, 10.0**decade)
        add(root, "path", d=f"M{_LEFT} {y:.1f}H{_RIGHT}", class_="tolerance" if decade == 0 else "grid")
        add(root, "text", f"1e{decade:+03d}", x=_LEFT - 6, y=y + 4, text_anchor="end")
    for i, step in enumerate(steps):
        x, _ = place(i, 1.0)
        add(root, "text", step.removeprefix("step "), x=x, y=_HEIGHT - _BOTTOM + 16, text_anchor="middle")
    for curve in found:
        group = add(root, "g", class_=witness_class(curve.value))
        points = [place(steps.index(row.condition), row.difference.excess) for row in curve.rows]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        hint(add(group, "polyline", points=line, class_="line", stroke_dasharray=_DASHES[curve.group]), curve.name)
    return root


def _worst(curve: Curve) -> Row:
    return max(curve.rows, key=lambda row: row.difference.excess)
