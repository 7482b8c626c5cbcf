"""The commands that look at weights: inspect one source, diff two, verify what convert wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from bigbird_port.cli_common import FAILED, no_traceback

_PATH = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@click.argument("out", type=_PATH)
@click.option("--source", type=_PATH, help="Also read every weight again from what was converted.")
@_JSON
@no_traceback
def verify(out: Path, source: Path | None, as_json: bool) -> None:
    """Verify what convert wrote into OUT against its manifest: every file, every weight, every configuration.

    Exit code 0 if all is as it was written, 1 on any difference, 2 where it cannot be checked.
    """
    from bigbird_port.verify import verify as run_verify

    result = run_verify(out, source, (lambda check: None) if as_json else _print_check)
    counts = result.counts
    if as_json:
        checks = [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in result.checks]
        _print_json({"out": str(out), "passed": result.passed, "checks": checks, **counts})
    else:
        compared = "{files} files ({bytes} bytes), {tensors} tensors, {targets} targets".format(**counts)
        failed = sum(not check.passed for check in result.checks)
        verdict = "verified" if result.passed else f"NOT VERIFIED, {failed} of {len(result.checks)} checks failed"
        click.echo(f"{out}: {verdict}: {compared} compared")
    sys.exit(0 if result.passed else FAILED)


def _print_check(check: Any) -> None:
    click.echo(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")


def _print_json(values: dict[str, Any]) -> None:
    click.echo(json.dumps({"version": 1} | values, indent=1, allow_nan=False))
