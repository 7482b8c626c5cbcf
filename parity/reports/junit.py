"""A report as JUnit XML: a test suite for each head and condition, a test case for each tap, pair and kind of error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from parity.reports.report import Report, by_head, pair, why
from parity.run.results import Row

# What XML 1.0 cannot hold even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: Report) -> str:
    """Return the document. Parts of a tap (attention heads, positions) are in the test case of the tap."""
    result, root = report.result, ElementTree.Element("testsuites", name="bigbird-port parity")
    if result.checks:
        suite = _suite(root, "integrity")
        for check in result.checks:
            _case(suite, "integrity", check.name, [] if check.passed else [check.detail])
    for head, condition, rows in by_head(result):
        suite = _suite(root, f"{head}, {condition}")
        if (condition, head) in result.missing:
            _case(suite, f"{head}.{condition}", "compared", ["asked for, but nothing of its own was compared"])
        for name, group in _cases(rows).items():
            failures = [f"{row.place}: {_numbers(row)}" for row in group if not row.passed]
            _case(suite, f"{head}.{condition}", name, failures)
    if not result.heads or not result.conditions:
        _case(_suite(root, "run"), "run", "compared", ["nothing was compared"])
    for element in (root, *root):
        element.set("tests", str(len(element.findall(".//testcase"))))
        element.set("failures", str(len(element.findall(".//failure"))))
        element.set("errors", "0")
    ElementTree.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _cases(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(f"{row.tap}: {pair(row)} ({row.error})", []).append(row)
    return found


def _numbers(row: Row) -> str:
    d = row.difference
    relative = "" if d.problem else f", relative {d.relative:.2e}, would pass at {d.would_pass:.2e}"
    return f"{why(row)}{relative}, tolerance {row.tolerance.bound:.1e} ({row.tolerance.reason})"


def _suite(root: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(root, "testsuite", name=_clean(name))


def _case(suite: ElementTree.Element, group: str, name: str, failures: list[str]) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_clean(group), name=_clean(name))
    if failures:
        failure = ElementTree.SubElement(case, "failure", message=_clean(failures[0]), type="difference")
        failure.text = _clean("\n".join(failures))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
