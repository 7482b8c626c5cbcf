"""What a run found, for people (tables) and for programs (JSON)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import bigbird_port
from parity.results import Result, Row

JSON_VERSION = 1
_PLAIN_WIDTH = 150


def make_console() -> Console:
    """A console that keeps every column where the output is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def print_taps(console: Console, result: Result) -> None:
    """Print one row for each tap of each head."""
    for head in result.heads:
        table = Table(title=f"{head}: taps", title_justify="left", box=None, pad_edge=False)
        for name in ("tap", "against", "shape", "max abs", "mean abs", "relative", "cosine error", "worst at"):
            table.add_column(name, justify="left" if name in ("tap", "against") else "right", no_wrap=True)
        table.add_column("tolerance", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for row in result.rows:
            if row.head == head:
                table.add_row(*_cells(row))
        console.print(table)
        console.print()


def print_summary(console: Console, result: Result) -> None:
    """Print the checks, one row for each head and pair, the first failing row, and what was compared."""
    for check in result.checks:
        console.print(f"{_mark(check.passed)} {check.name}: {escape(check.detail)}")
    for condition in result.conditions:
        devices = f"torch on {condition.torch_device}, flax on {condition.flax_device}"
        console.print(f"inputs: {condition.inputs}; {condition.dtype}, {devices}, highest matmul precision")
    table = Table(box=None, pad_edge=False)
    for name in ("head", "compared", "taps", "failed", "worst tap", "max abs", "relative", "tolerance", ""):
        right = name in ("taps", "failed", "max abs", "relative", "tolerance")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for head in result.heads:
        own = [row for row in result.rows if row.head == head]
        for kind in dict.fromkeys((row.value, row.reference, row.error) for row in own):
            rows = [row for row in own if (row.value, row.reference, row.error) == kind]
            table.add_row(*_summary_cells(head, rows))
    console.print(table)
    for head, names in result.initialised.items():
        if names:
            console.print(f"{head}: {len(names)} head weights not in the checkpoint, initialised from the seed")
    for head, names in result.not_compared.items():
        if names:
            console.print(f"{head}: golden tensors without a counterpart here: {_shorten(names)}")
    for finding in result.located:
        console.print(escape(finding.sentence), soft_wrap=True)
    if result.kept:
        console.print(f"tensors of the first failing layer: {result.kept}", soft_wrap=True)
    first = next((row for row in result.rows if not row.difference.passed), None)
    if first:
        against = f"{first.value} against {first.reference}"
        console.print(f"first failure: {first.head}, {_tap(first)}, {against}: {_why(first)}", soft_wrap=True)
    console.print(last_line(result), soft_wrap=True)


def last_line(result: Result) -> str:
    """One sentence: how much was compared, and the verdict."""
    failed = sum(not row.difference.passed for row in result.rows)
    failed_checks = sum(not check.passed for check in result.checks)
    verdict = "PASSED" if result.passed else "FAILED"
    heads = len({row.head for row in result.rows})
    return (
        f"{verdict}: {len(result.rows)} comparisons over {heads} of {len(result.heads)} heads, {failed} failed; "
        f"{len(result.checks)} integrity checks, {failed_checks} failed"
    )


def to_json(result: Result) -> dict[str, Any]:
    """Return everything as JSON values; figures that do not exist are null."""
    return {
        "version": JSON_VERSION,
        "bigbird_port": bigbird_port.__version__,
        "passed": result.passed,
        "heads": result.heads,
        "witnesses": result.witnesses,
        "conditions": [asdict(condition) for condition in result.conditions],
        "checks": [asdict(check) for check in result.checks],
        "rows": [_json_row(row) for row in result.rows],
        "initialised": result.initialised,
        "not_compared": result.not_compared,
        "located": [asdict(finding) for finding in result.located],
    }


def _json_row(row: Row) -> dict[str, Any]:
    figures = {name: value if _is_finite(value) else None for name, value in asdict(row.difference).items()}
    names = ("head", "shared_by", "condition", "value", "reference", "error", "tap", "attention_head", "shape")
    part = {"part": None if row.part is None else asdict(row.part), "tolerance": row.tolerance.bound}
    return {name: getattr(row, name) for name in names} | part | figures | {"passed": row.passed}


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _cells(row: Row) -> Iterable[str]:
    d = row.difference
    against = f"{row.value} / {row.reference}{'' if row.error == 'accumulated' else f' {row.error}'}"
    shape = "x".join(map(str, row.shape))
    if d.problem:
        return _tap(row), against, shape, d.problem, "", "", "", "", f"{row.tolerance.bound:.0e}", _mark(False)
    worst = ",".join(map(str, d.worst_index))
    figures = (f"{x:.1e}" for x in (d.max_abs, d.mean_abs, d.relative, d.cosine_error))
    return _tap(row), against, shape, *figures, worst, f"{row.tolerance.bound:.0e}", _mark(d.passed)


def _summary_cells(head: str, rows: list[Row]) -> Iterable[str]:
    failed = sum(not row.difference.passed for row in rows)
    worst = max(rows, key=lambda row: row.difference.excess)
    d = worst.difference
    figures = (d.problem, "") if d.problem else (f"{d.max_abs:.1e}", f"{d.relative:.1e}")
    pair = f"{rows[0].value} / {rows[0].reference}{'' if rows[0].error == 'accumulated' else f' {rows[0].error}'}"
    bound = f"{worst.tolerance.bound:.0e}"
    return head, pair, str(len(rows)), str(failed), _tap(worst), *figures, bound, _mark(not failed)


def _why(row: Row) -> str:
    d = row.difference
    if d.problem:
        return d.problem
    at = ", ".join(map(str, d.worst_index))
    return f"max abs {d.max_abs:.1e} at [{at}], {d.excess:.3g} times what is allowed".replace("[", r"\[")


def _tap(row: Row) -> str:
    return row.place


def _mark(passed: bool) -> str:
    return "[green]pass[/]" if passed else "[red]FAIL[/]"


def _shorten(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
