"""A report on the terminal. If the output is a file or a pipe, columns are plain."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from parity.checks.integrity import Check
from parity.reports.layers import layer_rows
from parity.reports.report import Line, Report, by_head, describe, figure, last_line, not_compared, summary, why
from parity.run.results import Result, Row

_PLAIN_WIDTH = 170
_LOADED = " as loaded for "
_LEFT = ("layer", "tap", "against", "error", "head", "condition", "compared", "worst tap", "fault", "caught at", "")


def make_console() -> Console:
    """Return a console. If the output is not a terminal, no column is cut."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def print_report(console: Console, report: Report, taps: bool = True) -> None:
    """Print the whole report. taps: whether to print a row for each tap."""
    if taps:
        print_taps(console, report.result)
    print_summary(console, report)


def to_text(report: Report) -> str:
    """Return the summary as plain text."""
    file = io.StringIO()
    print_summary(Console(file=file, highlight=False, width=_PLAIN_WIDTH), report)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def print_taps(console: Console, result: Result) -> None:
    """Print one row for each tap of each head."""
    many = len(result.conditions) > 1
    names = ("tap", "against", "error", "shape", "max abs", "mean abs", "relative", "worst at", "would pass")
    for head, condition, rows in by_head(result):
        own = [row for row in rows if row.head == head]
        if not own:
            continue
        table = _table((*names, "tolerance", ""), f"{head}: taps{f', {condition}' if many else ''}")
        for row in own:
            table.add_row(*map(_safe, _cells(row)), _mark(row.passed))
        console.print(table)
        for other in dict.fromkeys(row.head for row in rows if row.head != head):
            console.print(
                f"{sum(row.head == other for row in rows)} more taps, the same as of {escape(other)}: see there"
            )
        console.print()


def print_layers(console: Console, result: Result) -> None:
    """Print one row for each layer and tap of every head: the worst of all that was compared there."""
    many = len(result.conditions) > 1
    names = ("head", *["condition"] * many, "layer", "tap", "compared", "error", "max abs", "relative", "tolerance")
    table = _table((*names, ""))
    for one in layer_rows(result):
        worst, d = one.worst, one.worst.difference
        figures = (d.problem, "") if d.problem else (figure(d.max_abs), figure(d.relative))
        compared = (f"{worst.value} / {worst.reference}", worst.error)
        cells = (one.head, *[one.condition] * many, one.stage, one.tap, *compared, *figures)
        table.add_row(*map(_safe, cells), _bound(worst), _mark(one.passed))
    console.print(table)


def print_summary(console: Console, report: Report) -> None:
    """Print checks, one row for each head and pair, where faults start, the first failure, and what was compared."""
    result = report.result
    for check in _brief(result.checks):
        console.print(f"{_mark(check.passed)} {escape(check.name)}: {escape(check.detail)}", soft_wrap=True)
    for condition in result.conditions:
        console.print(f"inputs, {escape(condition.name)}: {escape(describe(condition))}", soft_wrap=True)
    names = (
        "head",
        "condition",
        "compared",
        "taps",
        "failed",
        "worst tap",
        "error",
        "max abs",
        "relative",
        "tolerance",
    )
    table = _table((*names, ""))
    for line in summary(result):
        table.add_row(*map(_safe, _summary_cells(line)), _mark(not line.failed))
    console.print(table)
    for head, sentence in not_compared(result):
        console.print(f"{escape(head)}: {escape(sentence)}", soft_wrap=True)
    for finding in result.located:
        console.print(f"located: {escape(finding.sentence)}", soft_wrap=True)
    if result.kept:
        console.print(f"tensors of the first failing layer: {escape(str(result.kept))}", soft_wrap=True)
    if report.detection:
        console.print(_detection(report))
    first = next(result.failures, None)
    if first:
        console.print(f"first failure: {escape(_first(first, len(result.conditions) > 1))}", soft_wrap=True)
    console.print(escape(last_line(result)), soft_wrap=True)


def _brief(checks: list[Check]) -> Iterator[Check]:
    """Every check, but those of what was loaded as one where all of several passed."""
    loaded = [check for check in checks if _LOADED in check.name]
    if len(loaded) < 2 or not all(check.passed for check in loaded):
        yield from checks
        return
    yield from (check for check in checks if check not in loaded)
    names, heads = (list(dict.fromkeys(check.name.split(_LOADED)[side] for check in loaded)) for side in (0, 1))
    detail = f"in {', '.join(names)} all weights equal the manifest's sha256 or, from the seed, each other"
    yield Check(f"{len(loaded)} loads for {len(heads)} heads", True, detail)


def _first(row: Row, many: bool) -> str:
    under = f", {row.condition}" if many else ""
    return f"{row.head}{under}, {row.place}, {row.value} against {row.reference}: {why(row)} ({row.error})"


def _table(names: Iterable[str], title: str | None = None) -> Table:
    table = Table(title=title and escape(title), title_justify="left", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    return table


def _cells(row: Row) -> tuple[str, ...]:
    d = row.difference
    bound = _bound(row)
    names = (row.place, f"{row.value} / {row.reference}", row.error, "x".join(map(str, row.shape)))
    if d.problem:
        return (*names, d.problem, "", "", "", "", bound)
    figures = map(figure, (d.max_abs, d.mean_abs, d.relative))
    return (*names, *figures, ",".join(map(str, d.worst_index)), figure(d.would_pass), bound)


def _summary_cells(line: Line) -> tuple[str, ...]:
    worst, d = line.worst, line.worst.difference
    figures = (d.problem, "") if d.problem else (figure(d.max_abs), figure(d.relative))
    names = (line.head, line.condition, f"{line.value} / {line.reference}")
    numbers = (str(len(line.rows)), str(line.failed))
    return (*names, *numbers, worst.place, worst.error, *figures, _bound(worst))


def _bound(row: Row) -> str:
    return f"{row.tolerance.bound:.1e}{' derived' * row.tolerance.derived}"


def _detection(report: Report) -> Table:
    table = _table(("fault", "head", "caught at", "times tolerance", ""), "detection of injected faults")
    for entry in report.detection or ():
        factor = entry.get("factor")
        cells = (entry["fault"], entry["head"], entry.get("tap") or "", "" if factor is None else f"{factor:.3g}")
        table.add_row(*map(_safe, cells), "[green]caught[/]" if entry["caught"] else "[red]MISSED[/]")
    return table


def _safe(text: object) -> str:
    return escape(str(text))


def _mark(passed: bool) -> str:
    return "[green]pass[/]" if passed else "[red]FAIL[/]"
