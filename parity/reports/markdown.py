"""A short report in Markdown, for the summary page of a continuous integration job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from parity.reports.report import Report, by_head, describe, figure, last_line, not_compared, pair, why, worst_of
from parity.run.results import Row

_FAILURES = 10  # of these, the JUnit and JSON files have the rest
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&@])")


def to_markdown(report: Report) -> str:
    """Return the verdict, a table by head, located faults, the first failures, and the detection matrix."""
    return "\n\n".join(filter(None, _blocks(report))) + "\n"


def _blocks(report: Report) -> Iterator[str]:
    result = report.result
    yield f"## BigBird parity: {'passed ✅' if result.passed else 'failed ❌'}"
    yield _escape(last_line(result))
    yield _list(f"{condition.name}: {describe(condition)}" for condition in result.conditions)
    yield _list(f"check failed: {check.name}: {check.detail}" for check in result.checks if not check.passed)
    names = ("head", "condition", "comparisons", "failed", "worst tap", "compared", "error", "error / tolerance")
    yield _table(names, (_cells(*found) for found in by_head(result)))
    if result.located:
        yield "### Where it starts"
        yield _list(finding.sentence for finding in result.located)
    failures = list(result.failures)
    if failures:
        yield "### Failures"
        yield _list(f"{row.head}, {row.condition}: {row.place}, {pair(row)} ({row.error}): {why(row)}"
                    for row in failures[:_FAILURES])  # fmt: skip
        more = len(failures) - _FAILURES
        yield f"and {more} more" if more > 0 else ""
    yield _list(f"{head}: {sentence}" for head, sentence in not_compared(result))
    if report.detection:
        yield "### Injected faults"
        yield _table(("fault", "head", "caught at", "error / tolerance"), (
            (x["fault"], x["head"], x.get("tap") or "" if x["caught"] else "missed ❌", _factor(x.get("factor")))
            for x in report.detection
        ))  # fmt: skip


def _cells(head: str, condition: str, rows: Sequence[Row]) -> Iterable[object]:
    if not rows:
        return head, condition, 0, "nothing was compared", "", "", "", ""
    worst, failed = worst_of(rows), sum(not row.passed for row in rows)
    figures = (pair(worst), worst.error, figure(worst.difference.excess))
    return head, condition, len(rows), f"{failed} ❌" if failed else 0, worst.place, *figures


def _factor(x: float | None) -> str:
    return "" if x is None else f"{x:.3g}"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {_escape(item)}" for item in items)


def _table(names: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(names), *([_escape(str(cell)) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
