"""What every renderer is given, and the sums that all renderers show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.measure.derived import DERIVED, MEASURED
from parity.measure.tolerances import BOTH
from parity.run.results import Result, Row


@dataclass(frozen=True, eq=False)
class Report:
    """A result and what stands beside it.

    config: fields of the model's BigBirdConfig, for the attention pattern. detection: the detection matrix, one mapping
    for each fault and head: fault, head, caught (bool), tap (where), factor (error over tolerance), and what else
    there is. None: not known.
    """

    result: Result
    config: Mapping[str, Any] | None = None
    detection: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, eq=False)
class Line:
    """All rows of one head, condition and pair of witnesses."""

    head: str
    condition: str
    value: str
    reference: str
    rows: Sequence[Row]

    @property
    def failed(self) -> int:
        """How many rows failed."""
        return sum(not row.passed for row in self.rows)

    @property
    def worst(self) -> Row:
        """The row that ``worst_of`` returns."""
        return worst_of(self.rows)


def by_head(result: Result) -> Iterator[tuple[str, str, list[Row]]]:
    """Yield (head, condition, rows) of every head and condition, with the rows of other heads that stand for it."""
    for condition in result.conditions:
        for head in (head for head in result.heads if condition.is_about(head)):
            yield head, condition.name, [x for x in result.rows if head in x.heads and x.condition == condition.name]


def summarise(head: str, condition: str, rows: Iterable[Row]) -> list[Line]:
    """Group rows by pair, in the order in which they first appear."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.value, row.reference), []).append(row)
    return [Line(head, condition, *key, rows=group) for key, group in found.items()]


def summary(result: Result) -> list[Line]:
    """Return the lines of every head and condition; rows that several heads share count for each."""
    return [line for found in by_head(result) for line in summarise(*found)]


def worst_of(rows: Iterable[Row]) -> Row:
    """Return the row whose error is largest in relation to its tolerance."""
    return max(rows, key=lambda row: row.difference.excess)


def counts(result: Result) -> dict[str, int]:
    """Return how much was compared, and how much of it failed."""
    return {
        "comparisons": len(result.rows),
        "comparisons failed": sum(1 for _ in result.failures),
        "heads": len({head for row in result.rows for head in row.heads} & set(result.heads)),
        "heads asked for": len(result.heads),
        "checks": len(result.checks),
        "checks failed": sum(not check.passed for check in result.checks),
        "not compared": len(result.missing),
    }


def last_line(result: Result) -> str:
    """Return one sentence: the verdict, how much was compared, and what was not."""
    n = counts(result)
    conditions = f" under {len(result.conditions)} conditions" if len(result.conditions) > 1 else ""
    missing = ", ".join(f"{head} ({condition})" for condition, head in result.missing)
    derived = derived_of(result)
    return (
        f"{verdict(result)}: {n['comparisons']} comparisons over {n['heads']} of {n['heads asked for']} heads"
        f"{conditions}, {n['comparisons failed']} failed; {n['checks']} integrity checks, {n['checks failed']} failed"
        + (f"; not compared: {missing}" if missing else "")
        + (f"; {derived}" if derived else "")
    )


def derived_of(result: Result) -> str:
    """Say of which devices the tolerances were not measured; empty where all were."""
    rows = [row for row in result.rows if row.tolerance.derived]
    if not rows:
        return ""
    # a pair that rounds differently has two keys, of which the CPU's was measured
    keys = {key for row in rows for key in row.tolerance.key.split(BOTH)}
    devices = sorted({key.split("/")[2] for key in keys} - {MEASURED})
    command = " ".join(f"--device {device}" for device in devices)
    return (
        f"the tolerances of {' and '.join(devices)} ({len(rows)} comparisons) are {DERIVED}: "
        f"bigbird-port parity calibrate {command} --out FILE measures them"
    )


def verdict(result: Result) -> str:
    """Return PASSED or FAILED."""
    return "PASSED" if result.passed else "FAILED"


def not_compared(result: Result) -> Iterator[tuple[str, str]]:
    """Yield (head, sentence) for everything that the verdict says nothing about."""
    for condition, head in result.missing:
        yield head, f"asked for, but nothing was compared under {condition}"
    for head, names in result.initialised.items():
        if names:
            yield head, f"{len(names)} head weights not in the checkpoint, initialised from the seed"
    explained: dict[str, list[str]] = {}
    for head, names in result.not_compared.items():
        if plain := [name for name in names if not name.endswith(")")]:
            yield head, f"not compared, without a counterpart: {shorten(plain)}"
        for name in (name for name in names if name.endswith(")")):
            explained.setdefault(name, []).append(head)
    for name, heads in explained.items():
        yield ", ".join(heads), f"not compared: {name}"


def why(row: Row) -> str:
    """Return how a row failed, or how far its error is below the tolerance, as text."""
    d = row.difference
    at = f" at [{', '.join(map(str, d.worst_index))}]" if d.worst_index else ""
    if d.problem:
        return f"{d.problem}{at}"
    return f"max abs {figure(d.max_abs)}{at}, {d.excess:.3g} times what is allowed"


def pair(row: Row | Line) -> str:
    """Return which witness was measured against which, as text."""
    return f"{row.value} against {row.reference}"


def describe(condition: Any) -> str:
    """Return a condition as text."""
    devices = {"torch": condition.torch_device, "flax": condition.flax_device}
    places = ", ".join(f"{name} on {device}" for name, device in devices.items() if device)
    overrides = ", ".join(f"{name}={value}" for name, value in condition.overrides.items())
    parts = [condition.purpose, condition.inputs, condition.dtype]
    parts += [places, f"{condition.matmul_precision} matmul precision"]
    return "; ".join(filter(None, [*parts, overrides]))


def figure(x: float) -> str:
    """Return a number as text for a table. A number that does not exist is a dash."""
    if math.isnan(x):
        return "-"
    return ("∞" if x > 0 else "-∞") if math.isinf(x) else "0" if x == 0 else f"{x:.1e}"


def shorten(names: Sequence[str], limit: int = 3) -> str:
    """Return the first names, and how many more there are, as text."""
    more = len(names) - limit
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:limit])} and {more} more"
