"""Compare two sources of weights of any kind, weight by weight in canonical form, whatever their names and layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.conversion.source import Source, open_source
from bigbird_port.conversion.values.canonical import for_each, pieces_as, reading_order
from bigbird_port.conversion.values.comparison import Comparison, together
from bigbird_port.files.casting import is_float
from bigbird_port.schema.layout import same_order
from bigbird_port.schema.reading.matching import Match
from bigbird_port.schema.reading.subtree import Wanted
from bigbird_port.schema.table import Weight, dims, weights_of
from bigbird_port.training.found import Found, find_training

EQUAL = "equal"
OTHER_DTYPE = "equal values, dtype differs"
BY_DESIGN = "by design"
DIFFERENT = "different"
_OF_TRAINING = ("optimizer slot", "training step counter", "optimizer state")


@dataclass(frozen=True)
class Row:
    """One weight on both sides. status: EQUAL, OTHER_DTYPE, BY_DESIGN, DIFFERENT, or what is lacking.

    dtypes: of A and B, None where a side lacks it. comparison: None where values were not compared. detail: why.
    """

    name: str
    status: str
    dtypes: tuple[str | None, str | None]
    comparison: Comparison | None = None
    detail: str = ""


@dataclass(frozen=True)
class Side:
    """One source of a comparison. letter: A or B. head: whose weights are asked for. held: canonical -> own name."""

    letter: str
    source: Source
    head: str
    match: Match
    held: Mapping[str, str]

    @cached_property
    def rows(self) -> dict[str, Weight]:
        """The schema's rows by canonical name."""
        return {row.name: row for row in weights_of(self.source.config)}

    def dtype(self, name: str) -> str | None:
        """Type of a weight, None where it is lacking."""
        if name not in self.held:
            return None
        stored = self.source.opened.store.tensors[self.held[name]]
        if not is_float(stored.dtype):
            found = stored.dtype or stored.type_name
            raise ValueError(
                f"{self.source.opened.path}: {self.held[name]} is {found}, expected floating-point numbers"
            )
        return stored.dtype.name if stored.dtype else None

    def pieces(self, name: str, axes: str) -> Iterator[np.ndarray]:
        """The values of a weight in the order of ``axes``."""
        own = self.source.axes(self.rows[name])
        return pieces_as(self.source.opened.store, self.held[name], own, axes, dims(self.source.config))


@dataclass(frozen=True)
class Difference:
    """The result. config: field -> its values in A and B where they differ, which does not make the weights differ.

    not_compared: names that are no weights, counted by side and reason.
    """

    a: Side
    b: Side
    rows: tuple[Row, ...]
    config: Mapping[str, tuple[Any, Any]]
    not_compared: Mapping[str, int]

    @property
    def compared(self) -> int:
        """Number of weights whose values were compared."""
        return sum(row.comparison is not None for row in self.rows)

    def same(self, values_only: bool = False) -> bool:
        """Whether all weights of both are there and equal bit for bit; values_only: whatever their dtypes."""
        good = {EQUAL, BY_DESIGN} | ({OTHER_DTYPE} if values_only else set())
        return self.compared > 0 and all(row.status in good for row in self.rows)


def diff(
    a: Path,
    b: Path,
    head: str | None = None,
    config_a: Path | None = None,
    config_b: Path | None = None,
    num_attention_heads: int | None = None,
    subtree_a: str | None = None,
    subtree_b: str | None = None,
    ema_a: bool = False,
    ema_b: bool = False,
) -> Difference:
    """Compare the weights of ``head`` (None: all) in two sources.

    Raises ValueError where one cannot be opened, does not fit its configuration or is damaged.
    """
    sides = [
        _side(letter, open_source(path, config, num_attention_heads, head, wanted), head)
        for letter, path, config, wanted in (
            ("A", a, config_a, Wanted(subtree_a, ema_a)),
            ("B", b, config_b, Wanted(subtree_b, ema_b)),
        )
    ]
    left, right = sides
    rows = [*_on_both(left, right), *_on_one(left, right), *_on_one(right, left), *_on_neither(left, right)]
    slots, apart = _slots(left, right)
    order = {name: i for i, name in enumerate(left.rows)}
    rows.sort(key=lambda row: order.get(row.name, len(order)))
    fields_a, fields_b = (side.source.config.to_dict() for side in sides)
    pairs = {name: (fields_a.get(name), fields_b.get(name)) for name in fields_a | fields_b}
    config = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    not_compared = _not_compared(sides, bool(slots)) | apart
    return Difference(left, right, (*rows, *_aliases(left), *_aliases(right), *slots), config, not_compared)


def _side(letter: str, source: Source, head: str | None) -> Side:
    match = source.match(head or source.head)
    return Side(letter, source, head or source.head, match, match.sources if head else match.sources | match.unused)


def _not_compared(sides: Iterable[Side], with_slots: bool) -> dict[str, int]:
    fates = ((side.letter, fate) for side in sides for fate in side.match.fates.values())
    told = (f"{letter}: {fate.detail}" for letter, fate in fates if fate.what == "ignored")
    return dict(Counter(text for text in told if not (with_slots and any(of in text for of in _OF_TRAINING))))


def _slots(a: Side, b: Side) -> tuple[list[Row], dict[str, int]]:
    """Training states compared, slot by slot, where both have one; else how many slots one of them has beside it."""
    try:
        found = {side.letter: find_training(side.source, side.match) for side in (a, b)}
    except ValueError as error:
        return [], {f"optimizer slots: {error}": 1}
    left, right = found["A"], found["B"]
    if left is None or right is None:
        beside = {letter: each for letter, each in found.items() if each is not None and each.state is not None}
        return [], {f"{letter}: optimizer slots": len(each.slots) for letter, each in beside.items()}
    rows = []
    for what in ("optimizer", "global_step", "powers"):
        values = [each.rule.name if what == "optimizer" else getattr(each, what) for each in (left, right)]
        if values[0] != values[1]:
            rows.append(Row(what, DIFFERENT, (None, None), detail=f"{values[0]} in A, {values[1]} in B"))
    for name in sorted(left.slots.keys() | right.slots.keys()):
        if name.rpartition("/")[0] in a.held.keys() | b.held.keys():
            rows.append(_slot_row(name, a, b, left, right))
    return rows, {}


def _slot_row(name: str, a: Side, b: Side, left: Found, right: Found) -> Row:
    held = [letter for letter, found in (("A", left), ("B", right)) if name in found.slots]
    dtypes = ("float32" if "A" in held else None, "float32" if "B" in held else None)
    if len(held) < 2:
        return Row(name, f"only in {held[0]}", dtypes)
    one, other = left.slots[name], right.slots[name]
    pairs = ((a, left, one), (b, right, other))
    shapes = [stored.slot.shape(dims(side.source.config)) for side, _, stored in pairs]
    if shapes[0] != shapes[1] or one.split or other.split:
        return Row(name, "shape differs", dtypes, detail=f"A {list(shapes[0])}, B {list(shapes[1])}")
    values = [
        pieces_as(found.store, stored.name, stored.axes, stored.slot.axes, dims(side.source.config))
        for side, found, stored in pairs
    ]
    comparison = _compared(values[0], values[1], name)
    return Row(name, DIFFERENT if comparison.differing else EQUAL, dtypes, comparison)


def _on_both(a: Side, b: Side) -> Iterator[Row]:
    names = [name for name, _ in reading_order(a.source.opened.store, a.held) if name in b.held]
    for found in for_each(names, lambda name: _compare(name, a, b)).values():
        if isinstance(found, ValueError):
            raise found
        yield found


def _compare(name: str, a: Side, b: Side) -> Row:
    dtypes = a.dtype(name), b.dtype(name)
    shape_a, shape_b = a.rows[name].shape(a.source.config), b.rows[name].shape(b.source.config)
    if shape_a != shape_b:
        return Row(name, "shape differs", dtypes, detail=f"A {list(shape_a)}, B {list(shape_b)}")
    axes_a, axes_b = (side.source.axes(side.rows[name]) for side in (a, b))
    axes = axes_a if same_order(axes_a, axes_b) else a.rows[name].axes  # where both lie alike nothing is turned
    comparison = _compared(a.pieces(name, axes), b.pieces(name, axes), name)
    if comparison.differing:
        sign = "" if comparison.max_abs else "only in the sign of zeros"
        return Row(name, DIFFERENT, dtypes, comparison, sign)
    return Row(name, EQUAL if dtypes[0] == dtypes[1] else OTHER_DTYPE, dtypes, comparison)


def _compared(a: Iterator[np.ndarray], b: Iterator[np.ndarray], name: str) -> Comparison:
    comparison = Comparison()
    try:
        for left, right in together(a, b):
            comparison.add(left, right)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return comparison


def _on_one(side: Side, other: Side) -> Iterator[Row]:
    """Weights that ``other`` lacks, some of them by design."""
    letters = side.letter, other.letter
    for name in side.held:
        if name in other.held:
            continue
        dtypes = (side.dtype(name), None) if side.letter == "A" else (None, side.dtype(name))
        row, status, detail = side.rows[name], f"only in {side.letter}", ""
        if side.head in row.torch_unused_heads:
            status, detail = BY_DESIGN, f"{status}: a {side.head} model in torch carries it without using it"
        elif other.match.fills.get(name) == "zeros" and not any(piece.any() for piece in side.pieces(name, row.axes)):
            status, detail = BY_DESIGN, "zero in {}, because the original has none in {}".format(*letters)
        yield Row(name, status, dtypes, detail=detail)


def _on_neither(a: Side, b: Side) -> Iterator[Row]:
    """Weights of the head that both lack; not those that torch alone carries, or that are zero by design."""
    for name, fill in a.match.fills.items():
        if name in b.match.fills and fill != "zeros" and a.head not in a.rows[name].torch_unused_heads:
            yield Row(name, "in neither", (None, None), detail=f"the {a.head} head needs it")


def _aliases(side: Side) -> Iterator[Row]:
    """Names in torch files that repeat a weight's values."""
    store = side.source.opened.store
    for alias, original in side.match.aliases.items():
        comparison = _compared(store.pieces(alias), store.pieces(original), alias)
        name = f"{side.letter}: {alias}"
        if comparison.differing:
            yield Row(name, "tied, but differs", (None, None), detail=f"should hold the values of {original}")
        else:
            yield Row(name, BY_DESIGN, (None, None), detail=f"repeats {original}")
