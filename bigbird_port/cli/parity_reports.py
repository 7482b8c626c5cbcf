"""The reports of parity: options that write them, ``parity report`` that renders one again, ``parity baseline``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bigbird_port.cli.common import FAILED, no_traceback

if TYPE_CHECKING:
    from parity.reports.report import Report
    from parity.run.results import Result

Files = dict[str, Path | None]
# Format -> what its option is for.
_FORMATS = {
    "json": "Write every figure to this file (docs/parity-report.schema.json).",
    "html": "Write a page with tables and pictures to this file.",
    "junit": "Write a test case for each tap to this file, as JUnit XML.",
    "markdown": "Write a summary to this file, for a job's summary page.",
}
_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


def report_options(*formats: str) -> Callable[[Any], Any]:
    """Give a command --json, --html, --junit and --markdown, or some of them: parameters json_file and so on."""

    def decorate(command: Any) -> Any:
        for name in reversed(formats or tuple(_FORMATS)):
            command = click.option(f"--{name}", f"{name}_file", type=_FILE, help=_FORMATS[name])(command)
        return command

    return decorate


def check_reports(files: Files, out: Path | None = None, **kinds: str) -> None:
    """Raise ValueError, before anything runs, where a file that an option names may not be written.

    kinds: of formats that the command writes in another way than parity itself (bigbird_port.files.writing.BEGINNINGS).
    """
    from bigbird_port.files.writing import check_all_writable

    named = ((files.get(f"{name}_file"), kinds.get(name, f"parity --{name}")) for name in _FORMATS)
    check_all_writable(((path, kind) for path, kind in named if path is not None), out)


def write_reports(report: Report, files: Files) -> None:
    """Write a report in every format that has a file, by the names of report_options; "-" is the standard output."""
    from bigbird_port.files.writing import write_whole

    for name, write in _WRITERS.items():
        path = files.get(f"{name}_file")
        if path is not None:
            text = write(report)
            write_whole(path, text, f"parity --{name}")


def report_of(result: Result, out: Path, matrix: Path | None = None) -> Report:
    """Return a result with the model's configuration, and a detection matrix that ``parity faults`` wrote."""
    from bigbird_port.models.folder import read_folder_config
    from parity.reports.report import Report

    return Report(result, read_folder_config(out, "torch").to_dict(), read_matrix(matrix) if matrix else None)


def read_matrix(path: Path) -> list[dict[str, Any]]:
    """Read what ``parity faults --json`` wrote; the faults that change the function. Raises ValueError naming it."""
    from bigbird_port.files.json_object import read_json_object

    rows = read_json_object(path).get("faults")
    wanted = {"fault", "head", "caught", "changes", "tap", "factor"}
    if not isinstance(rows, list) or not all(isinstance(row, dict) and wanted <= row.keys() for row in rows):
        raise ValueError(f"{path}: no detection matrix: expected what 'bigbird-port parity faults --json FILE' writes")
    return [row for row in rows if row["changes"] or row["caught"]]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@report_options("html", "junit", "markdown")
@no_traceback
def report(file: Path, **files: Path | None) -> None:
    """Render FILE, which parity --json wrote, again; without an option, print its summary.

    Exit code 0, whatever the verdict; 2: FILE is no such report.
    """
    from parity.reports.json_file import read_report
    from parity.reports.terminal import make_console, print_report

    check_reports(files)
    found = read_report(file)
    write_reports(found, files)
    if not any(files.values()):
        print_report(make_console(), found, taps=False)


@click.group()
def baseline() -> None:
    """Fail when errors grow, though still within tolerance: save what runs measure, check later runs against it."""


@baseline.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@no_traceback
def save(file: Path, runs: tuple[Path, ...]) -> None:
    """Write the baseline FILE from RUNS: two or more reports that parity --json wrote, each with another --seed."""
    from bigbird_port.files.writing import check_writable
    from parity.measure.baseline import save as save_baseline
    from parity.reports.json_file import read_report

    check_writable(file, "parity baseline save")
    save_baseline([read_report(run).result for run in runs], file)
    click.echo(f"{file}: from {len(runs)} runs")


@baseline.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@no_traceback
def check(file: Path, run: Path) -> None:
    """Check RUN, a report that parity --json wrote, against the baseline FILE.

    Exit code 0: no error grew beyond its recorded spread, and nothing disappeared; 1: a regression; 2: bad input.
    """
    from bigbird_port.files.reading import is_there
    from parity.measure.baseline import check as check_baseline
    from parity.measure.baseline import new_keys
    from parity.reports.json_file import read_report

    for path in (file, run):
        if not is_there(path):
            raise ValueError(f"{path}: there is no such file")
    result = read_report(run).result
    regressions, new = check_baseline(result, file), new_keys(result, file)
    for regression in regressions:
        click.echo(f"{regression.what}: {regression}")
    for key in new:
        click.echo(f"new, not judged: {', '.join(key)}")
    click.echo(f"{'FAILED' if regressions else 'PASSED'}: {len(regressions)} regressions, {len(new)} new figures")
    sys.exit(FAILED if regressions else 0)


def _json(report: Report) -> str:
    from parity.reports.json_file import to_json

    return json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"


def _html(report: Report) -> str:
    from parity.reports.page import to_html

    return to_html(report)


def _junit(report: Report) -> str:
    from parity.reports.junit import to_junit

    return to_junit(report)


def _markdown(report: Report) -> str:
    from parity.reports.markdown import to_markdown

    return to_markdown(report)


_WRITERS: dict[str, Callable[[Report], str]] = {"json": _json, "html": _html, "junit": _junit, "markdown": _markdown}
