"""How far the errors stay below their tolerances: a histogram of error over tolerance, in half decades."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from parity.reports.svg import Element, add, hint, limit, picture
from parity.run.results import Row

_LOWEST, _HIGHEST = -12, 12  # half decades: below 1e-6 and above 1e6 are one bin each
_LEFT, _TOP, _BOTTOM, _HEIGHT, _STEP = 10, 34, 34, 230, 44


@dataclass
class Bin:
    """A range of error over tolerance; counts: rows by kind of error."""

    name: str
    low: float
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many rows are in the bin."""
        return sum(self.counts.values())


def histogram(rows: Iterable[Row]) -> list[Bin]:
    """Return all bins from the lowest to the highest that have rows, the bin of no error and of no figure."""
    counts: dict[float, dict[str, int]] = {}
    for row in rows:
        own = counts.setdefault(_bin(row), {})
        own[row.error] = own.get(row.error, 0) + 1
    inner = [int(i) for i in counts if math.isfinite(i)]
    keys = [float(i) for i in range(min(inner), max(inner) + 1)] if inner else []
    outer = [key for key in (-math.inf, math.inf) if key in counts]
    keys = [key for key in outer if key < 0] + keys + [key for key in outer if key > 0]
    return [Bin(_name(key), key, counts.get(key, {})) for key in keys]


def draw(bins: list[Bin], name: str) -> Element:
    """Return the picture, in which bins beyond the tolerance are hatched."""
    width = max(_LEFT * 2 + _STEP * len(bins), 240)
    beyond = sum(one.total for one in bins if one.low >= 0)
    description = f"{sum(one.total for one in bins)} comparisons, {beyond} of them beyond their tolerance"
    root = picture(name, width, _HEIGHT, "error over tolerance", description)
    limit(root, width)
    hatch = add(add(root, "defs"), "pattern", id=f"{name}-hatch", width=6, height=6, patternUnits="userSpaceOnUse")
    add(hatch, "path", d="M-1 1l2 -2M0 6l6 -6M5 7l2 -2", class_="hatch")
    most = max(one.total for one in bins)
    floor = _HEIGHT - _BOTTOM
    for i, one in enumerate(bins):
        x, height = _LEFT + _STEP * i, (floor - _TOP) * one.total / most
        bar = {"x": x + 3, "y": floor - height, "width": _STEP - 6, "height": height}
        hint(add(root, "rect", **bar, class_="bar off" if one.low >= 0 else "bar"), f"{one.name}: {one.total}")
        if one.low >= 0:
            add(root, "rect", **bar, fill=f"url(#{name}-hatch)")
        add(root, "text", str(one.total or ""), x=x + _STEP / 2, y=floor - height - 5, text_anchor="middle")
        add(root, "text", one.name, x=x + _STEP / 2, y=floor + 15, text_anchor="middle")
    add(root, "path", d=f"M{_LEFT} {floor}H{width - _LEFT}", class_="axis")
    inside = [i for i, one in enumerate(bins) if one.low < 0]
    x = _LEFT + _STEP * (inside[-1] + 1 if inside else 0)
    add(root, "path", d=f"M{x} {_TOP - 14}V{floor}", class_="tolerance", stroke_dasharray="5 3")
    near_end = x > width / 2
    add(
        root,
        "text",
        "tolerance",
        x=x - 5 if near_end else x + 5,
        y=_TOP - 18,
        text_anchor="end" if near_end else "start",
    )
    add(root, "text", "error over tolerance, from", x=width / 2, y=_HEIGHT - 3, text_anchor="middle")
    return root


def _bin(row: Row) -> float:
    """Return the index of a half decade. A row passes if its index is below 0, or if it is exactly at its tolerance."""
    excess = row.difference.excess
    if row.difference.problem or not math.isfinite(excess):
        return math.inf
    if excess == 0:
        return -math.inf
    index = math.floor(2 * math.log10(excess))
    index = min(index, -1) if row.passed else max(index, 0)
    return float(min(max(index, _LOWEST), _HIGHEST))


def _name(key: float) -> str:
    if math.isinf(key):
        return "none" if key > 0 else "0"
    prefix = "<" if key == _LOWEST else ""
    return f"{prefix}{10 ** ((key + (key == _LOWEST)) / 2):.0e}"
