"""A record as one page that loads nothing; no template engine, because there may be none."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

from benchmarks.on_device.record import ABSENT, Record, part_passed, passed
from parity.measure.derived import DERIVED

_STYLE = """body { font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; vertical-align: top; padding: .2rem .6rem;
border-bottom: 1px solid #8886; overflow-wrap: anywhere } .ok { color: #116329 }
.bad { color: #b3001b; font-weight: 600 }
@media (prefers-color-scheme: dark) { body { background: #14171a; color: #e6e6e6 } .ok { color: #62d68b }
.bad { color: #ff8f93 } }"""
_LONG = 60  # rows of a part that stand open


def page(record: Record) -> str:
    """Return the document."""
    return "\n".join(_lines(record)) + "\n"


def _lines(record: Record) -> Iterator[str]:
    small = " (a dry run on tiny models: the figures say nothing of speed)" if record["small"] else ""
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>bigbird-port on {_safe(record['device'])}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>bigbird-port on {_safe(record['device'])}: {_mark(passed(record))}</h1>"
    yield f"<p>Begun {_safe(record['begun'])}, Python {_safe(record['python'])}{small}.</p>"
    yield "<h2>Parts</h2><table><tr><th>part</th><th>question</th><th>state</th><th>seconds</th><th>why</th></tr>"
    for part in record["parts"]:
        state = part["state"] if part["state"] == ABSENT else f"{part['state']}, {_mark(part_passed(part))}"
        cells = (f'<a href="#{part["name"]}">{part["name"]}</a>', _safe(part["question"]), state)
        seconds = f"{part['seconds']:.0f} of {part['limit']:.0f}"
        yield f"<tr>{_cells(*cells, seconds, _safe(part['why']))}</tr>"
    yield "</table><h2>Packages</h2><table>"
    yield from (f"<tr>{_cells(_safe(name), _safe(found))}</tr>" for name, found in record["packages"].items())
    yield "</table>"
    for part in record["parts"]:
        yield from _part(part)
    yield "</body></html>"


def _part(part: Record) -> Iterator[str]:
    yield f'<h2 id="{part["name"]}">{part["name"]}</h2><p>{_safe(part["question"])}</p>'
    judged = {one["judged_by"] for one in part["found"] if DERIVED in one.get("judged_by", "")}
    yield from (f'<p class="bad">{_safe(text)}</p>' for text in sorted(judged))
    long = len(part["found"]) > _LONG
    yield f"<details><summary>{len(part['found'])} findings</summary>" if long else ""
    yield "<table><tr><th>what</th><th></th><th>found</th></tr>"
    for one in part["found"]:
        mark = "" if one.get("passed") is None else _mark(one["passed"])
        more = "".join(f"<br>{_safe(text)}" for text in one.get("failed", ()))
        measured = "".join(f"<br>{_safe(name)}: {_safe(x)}" for name, x in one.get("measured", {}).items())
        yield f"<tr>{_cells(_safe(one['what']), mark, _safe(one['value']) + more + measured)}</tr>"
    yield "</table>"
    yield "</details>" if long else ""
    if part.get("said"):
        yield f"<pre>{_safe(part['said'])}</pre>"


def _cells(*texts: str) -> str:
    return "".join(f"<td>{text}</td>" for text in texts)


def _mark(good: bool) -> str:
    return '<span class="ok">✓ passed</span>' if good else '<span class="bad">✗ not passed</span>'


def _safe(x: Any) -> str:
    return html.escape(str(x))
