"""A report as one HTML file: no script, no request, everything readable as tables. The page is page.html.j2.

Legend: N attention heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import bigbird_port
from parity.measure.stages import stage_of
from parity.reports import curves, histogram, pattern_picture, svg
from parity.reports import report as common
from parity.reports.report import Report
from parity.run.results import Finding, Result, Row

_FAILURES = 100  # of these, "Every tap" has the rest
_FAILURES_OPEN = 12  # more are folded: where it starts says more than what follows from it
_FAINTEST = 2  # decades below the tolerance at which a cell of a heat map has no colour


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Error of every attention head's context: rows by layer and head."""

    name: str
    pair: str
    cells: Mapping[int, Mapping[int, Row]]
    heads: list[int]
    failed: int


def to_html(report: Report) -> str:
    """Return the document; raises ValueError if the report's configuration is not valid."""
    files = resources.files("parity.reports")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": common.figure, "runs": runs, "pair": common.pair}
    environment.filters |= {"describe": common.describe, "said": curves.said, "warmth": warmth}
    page = environment.from_string((files / "page.html.j2").read_text(encoding="utf-8"))
    result, name = report.result, svg.Names()
    return page.render(
        version=bigbird_port.__version__,
        style=Markup((files / "page.css").read_text(encoding="utf-8")),
        result=result,
        verdict=common.verdict(result),
        last_line=common.last_line(result),
        lines=common.summary(result),
        not_compared=list(common.not_compared(result)),
        starts=starts(result.located),
        failures=list(result.failures),
        failures_shown=_FAILURES,
        failures_open=_FAILURES_OPEN,
        curves=list(_curves(result, name)),
        training=_training(result, name),
        heat_maps=heat_maps(result.rows),
        pattern=_pattern(report, name),
        histogram=_histogram(result, name),
        tolerances=_tolerances(result.rows),
        derived=common.derived_of(result),
        environment=list(flat(result.environment)),
        detection=detection(report),
        taps=list(_taps(result)),
    )


def warmth(row: Row) -> float:
    """0 .. 1: how close an error is to its tolerance, on a logarithmic scale."""
    excess = row.difference.excess
    if not 0 < excess < math.inf:
        return 0.0 if excess == 0 else 1.0
    return round(min(max(math.log10(excess) / _FAINTEST + 1, 0.0), 1.0), 2)


def heat_maps(rows: Iterable[Row]) -> list[HeatMap]:
    """Return one for each head, condition and pair, of the rows that are about an attention head of a layer."""
    found: dict[tuple[str, str], dict[int, dict[int, Row]]] = {}
    for row in rows:
        layer = stage_of(row.tap)
        if row.attention_head is None or not isinstance(layer, int) or row.error != "accumulated":
            continue
        key = f"{row.head}, {row.condition}", common.pair(row)
        cells = found.setdefault(key, {}).setdefault(layer, {})
        before = cells.get(row.attention_head)
        if before is None or row.difference.excess > before.difference.excess:
            cells[row.attention_head] = row
    return [
        HeatMap(
            *(name, pair, cells, sorted({n for own in cells.values() for n in own})),
            failed=sum(not row.passed for own in cells.values() for row in own.values()),
        )
        for (name, pair), cells in found.items()
    ]


def starts(findings: Iterable[Finding]) -> list[tuple[str, int, Finding]]:
    """Return each place where a pair starts to differ, in how many heads and conditions, and the first of them."""
    found: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.tap, finding.value, finding.reference), []).append(finding)
    return [(tap, len(own), own[0]) for (tap, _, _), own in found.items()]


def runs(numbers: Sequence[int]) -> list[str]:
    """Return ascending numbers as text, three or more in a row as "first to last"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return [text for run in found for text in (map(str, run) if len(run) < 3 else [f"{run[0]} to {run[-1]}"])]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, text) of nested values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}: " if name != "items" else prefix)
        elif isinstance(value, list | tuple):
            for entry in value:
                entries = dict(flat(entry)).values() if isinstance(entry, Mapping) else [str(entry)]
                yield f"{prefix}{name}", "; ".join(entries)
        else:
            yield f"{prefix}{name}", str(value)


def detection(report: Report) -> dict[str, Any] | None:
    """Return the detection matrix as a table: heads, the entries by fault and head, and where each fault showed."""
    if not report.detection:
        return None
    heads = list(dict.fromkeys(entry["head"] for entry in report.detection))
    faults: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in report.detection:
        faults.setdefault(entry["fault"], {})[entry["head"]] = entry
    taps = {
        fault: list(dict.fromkeys(entry["tap"] for entry in entries.values() if entry["caught"] and entry["tap"]))
        for fault, entries in faults.items()
    }
    caught = sum(bool(entry["caught"]) for entry in report.detection)
    into = sorted({str(entry["into"]) for entry in report.detection if "into" in entry})
    return {
        "heads": heads,
        "faults": faults,
        "taps": taps,
        "into": into,
        "caught": caught,
        "all": len(report.detection),
    }


def _training(result: Result, name: svg.Names) -> dict[str, Any] | None:
    """The curves of a training run over its steps; None of any other run."""
    from parity.training.curves import curves as found_in
    from parity.training.curves import growth_picture

    if not any(row.error == "training" for row in result.rows):
        return None
    found, steps = found_in(result), [condition.name for condition in result.conditions]
    drawn = svg.markup(growth_picture(found, steps, name("training")))
    return {"curves": found, "steps": steps, "picture": drawn}


def _curves(result: Result, name: svg.Names) -> Iterator[tuple[str, str, int, list[dict[str, Any]]]]:
    """(head, condition, failures, pictures by kind of error)."""
    for head, condition, rows in common.by_head(result):
        entries = []
        for found in curves.curves(head, condition, rows):
            legend = [(series.name, svg.markup(curves.legend(series, name("sign")))) for series in found.series]
            entries.append({"of": found, "picture": svg.markup(curves.draw(found, name("curves"))), "legend": legend})
        if entries:
            yield head, condition, sum(not row.passed for row in rows), entries


def _pattern(report: Report, name: svg.Names) -> dict[str, Any] | None:
    """Pictures by layer and head, of the longest texts; None without a configuration, no layers for full attention."""
    passes = [condition for condition in report.result.conditions if not condition.purpose]
    if report.config is None or not passes:
        return None
    condition = max(passes, key=lambda condition: condition.length)
    fixed, head, layers = "", name("pattern"), []
    for i, layer in enumerate(pattern_picture.grids({**report.config, **condition.overrides}, condition.length)):
        fixed = fixed or svg.markup(pattern_picture.draw_fixed(layer[0], head))
        pictures = [pattern_picture.draw(grid, head, name("p"), f"layer {i}, head {n}") for n, grid in enumerate(layer)]
        texts = map(pattern_picture.describe, layer)
        layers.append(list(zip(texts, map(svg.markup, pictures), strict=True)))
    return {"fixed": fixed, "layers": layers, "condition": condition}


def _histogram(result: Result, name: svg.Names) -> dict[str, Any] | None:
    if not result.rows:
        return None
    bins = histogram.histogram(result.rows)
    errors = list(dict.fromkeys(row.error for row in result.rows))
    return {"bins": bins, "errors": errors, "picture": svg.markup(histogram.draw(bins, name("histogram")))}


def _tolerances(rows: Iterable[Row]) -> dict[str, Any] | None:
    """What each entry of the table allows, over the depths at which it was used; what reasons share, as notes."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.tolerance.key, []).append(row)
    notes: dict[str, int] = {}
    entries = []
    for key, own in sorted(found.items()):
        reasons = [reason.partition("; ") for reason in sorted({row.tolerance.reason for row in own})]
        entries.append(
            {
                "key": key,
                "bounds": _range(row.tolerance.bound for row in own),
                "worst": _range(row.tolerance.worst for row in own),
                "factor": f"{own[0].tolerance.factor:.3g}",
                "derived": any(row.tolerance.derived for row in own),
                "floor": _range(row.tolerance.floor for row in own),
                "count": len(own),
                "reasons": list(dict.fromkeys(first for first, _, _ in reasons)),
                "notes": [notes.setdefault(rest, len(notes) + 1) for _, _, rest in reasons if rest],
            }
        )
    return {"entries": entries, "notes": list(notes)} if entries else None


def _range(values: Iterable[float]) -> str:
    texts = list(dict.fromkeys(common.figure(x) for x in sorted(values)))
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def _taps(result: Result) -> Iterator[tuple[str, str, int, list[Row]]]:
    """(head, condition, failures, rows) of each head's own rows, without those of attention heads that passed."""
    for head, condition, rows in common.by_head(result):
        own = [row for row in rows if row.head == head]
        if own:
            shown = [row for row in own if row.attention_head is None or not row.passed]
            yield head, condition, sum(not row.passed for row in own), shown
