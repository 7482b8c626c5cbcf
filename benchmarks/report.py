"""What was measured: a record in JSON, and its rows beside their goals on the terminal and in docs/.

A record: machine, versions, quick, and subjects by name, each with title, measured (when), seconds, results, rows.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Record = dict[str, Any]
ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "docs/benchmarks.md",)
FRAMEWORKS = {"torch": "torch", "flax": "Flax"}  # and what the rows call them
SUBJECTS = (
    "attention",
    "encoder_layer",
    "model",
    "growth",
    "first_call",
    "train_step",
    "daily",
)  # each a module beside this one
GROWTH_PLOT = "![Time and memory of a two-layer encoder over length, both axes logarithmic](growth.svg)"
HEADINGS = ("what", "transformers", "ours", "ratio", "goal", "")


@dataclass(frozen=True)
class Row:
    """One figure of both sides, in ``unit``.

    peer: None where transformers has no such figure. goal: the least ratio of peer to ours, or with ``on="ours"`` the
    most that ours may be; None where there is no goal.
    """

    what: str
    unit: str
    peer: float | None
    ours: float
    goal: float | None = None
    on: Literal["ratio", "ours"] = "ratio"

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.peer / self.ours

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        if self.on == "ours":
            return self.ours <= self.goal
        return self.ratio is not None and self.ratio >= self.goal

    def cells(self) -> tuple[str, ...]:
        """Text for each of HEADINGS."""
        goal = "" if self.goal is None else f">= {self.goal:g}x" if self.on == "ratio" else f"<= {self.goal:g}"
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        peer, ratio = (
            "" if self.peer is None else _number(self.peer),
            "" if self.ratio is None else f"{self.ratio:.2f}x",
        )
        return f"{self.what}, {self.unit}", peer, _number(self.ours), ratio, goal, verdict


def _number(value: float) -> str:
    """Three or four digits, so that no goal is met or missed by rounding alone."""
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def rows_of(record: Record, name: str) -> list[Row]:
    """The rows of a subject in a record."""
    made: list[Row] = importlib.import_module(f"benchmarks.{name}").rows(record["subjects"][name]["results"])
    return made


def print_rows(rows: Iterable[Row]) -> None:
    """Print one table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if 0 < i < 4 else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=150).print(table)


def markdown_table(rows: Iterable[Row]) -> str:
    """Return the same table in Markdown."""
    lines = [HEADINGS, ("---", "---:", "---:", "---:", "---", "---"), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def read_record(path: Path) -> Record:
    """Read what write_record wrote."""
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def write_record(record: Record, path: Path) -> None:
    """Write a record, its rows with it, whole or not at all."""
    for name, subject in record["subjects"].items():
        subject["rows"] = [
            dataclasses.asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows_of(record, name)
        ]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def tables(record: Record) -> dict[str, str]:
    """Return Markdown for each place that a page marks with ``<!-- measured: NAME -->``: goals, all, and conditions."""
    rows = [row for name in record["subjects"] for row in rows_of(record, name)]
    machine, subjects = record["machine"], record["subjects"].values()
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    first, last = (choose(subject["measured"] for subject in subjects) for choose in (min, max))
    minutes = round(sum(subject["seconds"] for subject in subjects) / 60)
    conditions = f"""\
* {machine["processor"]}, one of {machine["cores"]} cores, {machine["memory_mib"] / 1024:.0f} GiB; {machine["system"]}
* {packages}
* measured between {first} and {last}, in {minutes} minutes
* {runs_of(record)}"""
    return {
        "growth": GROWTH_PLOT if "growth" in record["subjects"] else "Not measured yet: `python -m benchmarks growth`.",
        "goals": markdown_table(row for row in rows if row.goal is not None),
        "all": markdown_table(rows),
        "conditions": conditions,
    }


def runs_of(record: Record) -> str:
    """Say of how many runs the times of each subject are medians, and what was not measured."""
    by_runs: dict[int, list[str]] = {}
    for name, subject in record["subjects"].items():
        counts = (result[key] for result in subject["results"] for key in ("repeats", "ours_repeats") if key in result)
        by_runs.setdefault(min(counts), []).append(name)
    said = [f"of {runs} run{'s' * (runs > 1)}: {', '.join(names)}" for runs, names in sorted(by_runs.items())[::-1]]
    if lacking := [name for name in SUBJECTS if name not in record["subjects"]]:
        said.append(f"not measured yet: {', '.join(lacking)}")
    return f"medians {'; '.join(said)}"


def filled(page: str, texts: Mapping[str, str]) -> str:
    """Return a page with what stands between ``<!-- measured: NAME -->`` and ``<!-- end -->`` put in place."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{texts[match[2]]}\n{match[3]}"

    return re.sub(r"(<!-- measured: (\w+) -->).*?(<!-- end -->)", fill, page, flags=re.DOTALL)


def write_report(record: Record) -> None:
    """Draw the plots in docs/, and fill in what docs/benchmarks.md shows."""
    from benchmarks.plots import draw

    draw(record, ROOT / "docs")
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8"), tables(record)), encoding="utf-8")
