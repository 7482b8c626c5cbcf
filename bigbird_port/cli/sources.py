"""The commands that look at weights: inspect one source, diff two, verify what convert wrote."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from bigbird_port.cli.common import FAILED, HeadName, SourcePath, follow_links, no_traceback

_PATH = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_HEADS = click.option(
    "--num-attention-heads", type=click.IntRange(min=1), help="Where neither a file nor kernels tell."
)
_WIDTH = 220  # of tables that do not go to a terminal


@click.command()
@click.argument("path", type=SourcePath())
@click.option("--config", "config_file", type=_PATH, help="The original's flags, or config.json.")
@_HEADS
@click.option("--head", type=HeadName(), help="Whose weights to look for [default: what the source holds].")
@click.option("--subtree", metavar="NAME", help="Which part of PATH, where it holds several models.")
@click.option("--ema", is_flag=True, help="Look at moving averages instead of the weights.")
@follow_links
@_JSON
@no_traceback
def inspect(path: Path, as_json: bool, **options: Any) -> None:
    """Show what PATH holds: configuration, every weight with its statistics and meaning, and what does not fit.

    PATH is anything that convert takes. Names that are ignored, such as optimizer slots, are counted, not read.
    Of programs that convert wrote (onnx, stablehlo, saved-model) it says how each is called.
    Exit code 0 if all could be read, whether it fits the schema or not; 1 if a tensor is damaged.
    """
    from bigbird_port.conversion.exports import find_exports, holds_exports_alone
    from bigbird_port.conversion.inspect_source import inspect as run_inspect

    exports = find_exports(path) if path.is_dir() else {}
    values = {"exports": {name: export.to_json() for name, export in exports.items()}} if exports else {}
    if not as_json:
        for name, export in exports.items():
            click.echo(f"{name}: {export}")
    if holds_exports_alone(path, exports):
        if as_json:
            _print_json({"path": str(path)} | values)
        return
    found = run_inspect(path, **options)
    if as_json:
        _print_json(inspection_values(found) | values)
    else:
        print_inspection(found)
    sys.exit(FAILED if found.damaged else 0)


def print_inspection(found: Any) -> None:
    """Print what a source holds."""
    from bigbird_port.conversion.inspect_source import KINDS

    click.echo(f"{found.opened.path}: {KINDS[found.opened.style]}")
    for file, size in found.files.items():
        click.echo(f"  {size:>14,} bytes  {file}")
    for note in found.notes:
        click.echo(note)
    if found.config:
        values = found.config.to_dict()
        click.echo("configuration: " + ", ".join(f"{name}={values[name]}" for name in found.config.family.shown))
    weights = sum(tensor.use.what == "weight" for tensor in found.tensors)
    layers = f", {found.config.num_hidden_layers} layers" if found.config else ""
    click.echo(f"head: {found.head or 'unknown'}{layers}, {weights} weights, {found.parameters:,} parameters")
    _print_table(
        ("name", "shape", "dtype", "min", "max", "mean", "std", "means", "remarks"),
        (_tensor_cells(tensor) for tensor in found.tensors if tensor.use.what != "ignored"),
    )
    if found.training:
        click.echo(f"training: {found.training}")
    for reason, count in found.ignored.items():
        click.echo(f"{count} ignored: {reason}")
    for name, fill in found.fills.items():
        click.echo(f"lacking: {name}: {'zeros' if fill == 'zeros' else 'initialised from the seed'} in a conversion")
    for finding in found.findings:
        click.echo(f"warning: {finding.text}")
    for problem in found.problems:
        click.echo(f"problem: {problem}")
    for tensor in found.damaged:
        click.echo(f"damaged: {tensor.name}: {tensor.error}")


def _tensor_cells(tensor: Any) -> tuple[str, ...]:
    numbers = [""] * 4
    if (stats := tensor.statistics) and stats.count:
        numbers = [f"{value:.4g}" for value in (stats.low, stats.high, stats.mean, stats.std)]
    use = tensor.use
    means = {"weight": use.name, "alias": f"= {use.name}", "unused": f"{use.name}, unused"}.get(use.what, "?")
    remarks = [*tensor.flags, *(["DAMAGED"] if tensor.error else [])]
    remarks += [use.detail] if use.what in ("unused", "extra") else []
    return (tensor.name, str(list(tensor.shape)), tensor.dtype, *numbers, str(means), "; ".join(remarks))


def inspection_values(found: Any) -> dict[str, Any]:
    """What a source holds as JSON values; numbers that are not finite are null."""
    return {
        "path": str(found.opened.path),
        "kind": found.opened.style,
        "files": [{"name": str(file), "size": size} for file, size in found.files.items()],
        "config": found.config and found.config.to_dict(),
        "config_notes": list(found.notes),
        "subtree": found.subtree,
        "head": found.head,
        "layers": found.config and found.config.num_hidden_layers,
        "parameters": found.parameters,
        "training": found.training or None,
        "ignored": found.ignored,
        "lacking": dict(found.fills),
        "problems": list(found.problems),
        "findings": [{"kind": f.kind, "weight": f.weight, "text": f.text} for f in found.findings],
        "tensors": {tensor.name: _tensor_values(tensor) for tensor in found.tensors},
    }


def _tensor_values(tensor: Any) -> dict[str, Any]:
    use, stats = tensor.use, tensor.statistics
    values = {"shape": list(tensor.shape), "dtype": tensor.dtype, "use": use.what, "weight": use.name}
    values |= {"detail": use.detail, "flags": list(tensor.flags), "sha256": tensor.sha256, "error": tensor.error}
    if stats:
        numbers = {"min": stats.low, "max": stats.high, "mean": stats.mean, "std": stats.std}
        values |= {name: _finite(value) for name, value in numbers.items()}
        values |= {"nan": stats.nans, "inf": stats.infs}
    return values


@click.command()
@click.argument("a", type=SourcePath())
@click.argument("b", type=SourcePath())
@click.option("--head", type=HeadName(), help="Only the weights of this head [default: all that either holds].")
@click.option("--config-a", type=_PATH, help="A's configuration, where none lies beside it.")
@click.option("--config-b", type=_PATH, help="B's configuration, where none lies beside it.")
@click.option("--subtree-a", metavar="NAME", help="Which part of A, where it holds several models.")
@click.option("--subtree-b", metavar="NAME", help="Which part of B, where it holds several models.")
@click.option("--ema-a", is_flag=True, help="Take A's moving averages instead of its weights.")
@click.option("--ema-b", is_flag=True, help="Take B's moving averages instead of its weights.")
@_HEADS
@click.option("--values", is_flag=True, help="Equal values are enough, whatever their dtypes.")
@click.option("--all", "show_all", is_flag=True, help="Show equal weights too.")
@follow_links
@_JSON
@no_traceback
def diff(a: Path, b: Path, values: bool, show_all: bool, as_json: bool, **options: Any) -> None:
    """Compare the weights of A and B, of any kind each, one by one and bit for bit in one layout.

    Exit code 0 if every weight of both is there and equal, 1 if not, 2 where they cannot be compared. Configurations
    are shown where they differ, and do not count.
    """
    from bigbird_port.conversion.diff import diff as run_diff

    result = run_diff(a, b, **options)
    same = result.same(values)
    if as_json:
        _print_json(difference_values(result, same))
    else:
        print_difference(result, same, show_all)
    sys.exit(0 if same else FAILED)


def print_difference(result: Any, same: bool, show_all: bool) -> None:
    """Print how two sources differ."""
    from bigbird_port.conversion.diff import BY_DESIGN, EQUAL

    for side in (result.a, result.b):
        click.echo(f"{side.letter}: {side.source.opened.path}: {side.source.opened.style}, {side.head}")
    for name, (in_a, in_b) in result.config.items():
        click.echo(f"configuration: {name} is {in_a!r} in A, {in_b!r} in B")
    shown = [row for row in result.rows if show_all or row.status not in (EQUAL, BY_DESIGN)]
    if shown:
        _print_table(
            ("weight", "result", "dtype A", "dtype B", "differing", "max abs", "max rel", "max ulp", "remarks"),
            (_row_cells(row) for row in shown),
        )
    if not show_all:
        for row in result.rows:
            if row.status == BY_DESIGN:
                click.echo(f"by design: {row.name}: {row.detail}")
    for what, count in result.not_compared.items():
        click.echo(f"not compared: {count} in {what}")
    statuses = [row.status for row in result.rows]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    click.echo(f"{'SAME' if same else 'DIFFERENT'}: {result.compared} weights compared: {counts or 'none'}")


def _row_cells(row: Any) -> tuple[str, ...]:
    numbers = ("",) * 4
    if (found := row.comparison) and found.differing:
        ulp = "NaN" if found.max_ulp is None else f"{found.max_ulp:,}"
        numbers = (f"{found.differing:,}/{found.count:,}", f"{found.max_abs:.4g}", f"{found.max_rel:.4g}", ulp)
    return (row.name, row.status, *(dtype or "" for dtype in row.dtypes), *numbers, row.detail)


def difference_values(result: Any, same: bool) -> dict[str, Any]:
    """How two sources differ as JSON values; numbers that are not finite are null."""
    return {
        "same": same,
        "a": {"path": str(result.a.source.opened.path), "kind": result.a.source.opened.style, "head": result.a.head},
        "b": {"path": str(result.b.source.opened.path), "kind": result.b.source.opened.style, "head": result.b.head},
        "compared": result.compared,
        "config": {name: {"a": in_a, "b": in_b} for name, (in_a, in_b) in result.config.items()},
        "not_compared": dict(result.not_compared),
        "weights": {row.name: _row_values(row) for row in result.rows},
    }


def _row_values(row: Any) -> dict[str, Any]:
    values = {"status": row.status, "dtype_a": row.dtypes[0], "dtype_b": row.dtypes[1], "detail": row.detail}
    if found := row.comparison:
        values |= {"count": found.count, "differing": found.differing, "max_ulp": found.max_ulp}
        values |= {"max_abs": _finite(found.max_abs), "max_rel": _finite(found.max_rel)}
    return values


@click.command()
@click.argument("out", type=_PATH)
@click.option("--source", type=SourcePath(), help="Also read every weight again from what was converted.")
@click.option("--subtree", metavar="NAME", help="Which part of the source [default: what was converted].")
@follow_links
@_JSON
@no_traceback
def verify(out: Path, source: Path | None, subtree: str | None, as_json: bool) -> None:
    """Verify what convert wrote into OUT against its manifest: every file, every weight, every configuration.

    Exit code 0 if all is as it was written, 1 on any difference, 2 where it cannot be checked.
    """
    from bigbird_port.conversion.verify import verify as run_verify

    result = run_verify(out, source, (lambda check: None) if as_json else _print_check, subtree)
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


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in _NUMBERS else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH).print(table)


_NUMBERS = ("min", "max", "mean", "std", "differing", "max abs", "max rel", "max ulp")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
