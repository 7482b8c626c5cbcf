"""A pytest fixture that gates a converted checkpoint: ``def test_model(bigbird_parity): bigbird_parity("out/")``.

Every pytest run on a machine with this package imports this file, so everything else is imported on use.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from parity.run.results import Result


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's option."""
    group = parser.getgroup("bigbird-parity", "parity of converted BigBird checkpoints")
    group.addoption(
        "--bigbird-parity-html", metavar="DIR", help="write an HTML report for each use of bigbird_parity to DIR"
    )


@pytest.fixture
def bigbird_parity(request: pytest.FixtureRequest) -> Callable[..., Result]:
    """Return a function that runs parity and raises AssertionError, with the report, unless it passes.

    ``bigbird_parity(out, head=None, baseline=None, **options)``: out is the folder that convert wrote; head a name,
    several, or None for all eight; baseline a file of ``bigbird-port parity baseline save``; options are the fields
    of parity.run.Options. It returns the Result; raises ValueError for bad input.
    """
    folder = request.config.getoption("--bigbird-parity-html")
    uses: list[Path] = []

    def gate(
        out: str | Path, head: str | list[str] | None = None, baseline: str | Path | None = None, **options: Any
    ) -> Result:
        __tracebackhide__ = True
        page = None
        if folder is not None:
            name = re.sub(r"[^\w.-]+", "-", request.node.nodeid).strip("-")
            page = Path(folder) / f"{name}{f'-{len(uses) + 1}' if uses else ''}.html"
            uses.append(page)
        result, trouble = _run(Path(out), head, None if baseline is None else Path(baseline), page, options)
        if trouble:
            raise AssertionError(trouble)
        return result

    return gate


def _run(
    out: Path, head: str | list[str] | None, baseline: Path | None, page: Path | None, options: dict[str, Any]
) -> tuple[Result, str]:
    """Run parity and write its page; also what is wrong, empty if nothing is."""
    from bigbird_port.families.registry import default_family, find_head
    from bigbird_port.files.writing import check_writable, write_whole
    from bigbird_port.models.folder import read_folder_config
    from parity.measure.baseline import check
    from parity.reports.page import to_html
    from parity.reports.report import Report
    from parity.reports.terminal import to_text
    from parity.run.run import Options, run_parity

    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        check_writable(page, "parity --html")
    names = list(default_family().heads) if head is None else [head] if isinstance(head, str) else head
    result = run_parity(out, [find_head(name).name for name in names], Options(**options))
    report = Report(result, read_folder_config(out, "torch").to_dict())
    if page is not None:
        write_whole(page, to_html(report), "parity --html")
    regressions = check(result, baseline) if baseline is not None else []
    trouble = [] if result.passed else [to_text(report)]
    trouble += [f"worse than {baseline}: {regression}" for regression in regressions]
    if trouble and page is not None:
        trouble.append(f"report: {page}")
    return result, "\n".join(trouble)
