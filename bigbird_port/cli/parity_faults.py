"""``parity faults``: prove that the comparison sees what it should; ``parity bisect``: what explains a difference."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from bigbird_port.cli.common import FAILED, HeadName, no_traceback
from bigbird_port.cli.parity_reports import check_reports, write_reports
from bigbird_port.cli.parity_usage import given_options
from bigbird_port.installed import BOTH, need

if TYPE_CHECKING:
    from bigbird_port.families.family import Family
    from bigbird_port.schema.table import Framework
    from parity.faults.matrix import Proof

_INTO = click.option("--into", type=click.Choice(("torch", "flax")), default="torch", show_default=True)
_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
_MARKS = {"caught": "[green]caught[/]", "missed": "[red]MISSED[/]", "no change": "-", "false alarm": "[red]ALARM[/]"}


@click.command()
@click.argument("out", type=click.Path(path_type=Path), required=False)
@_INTO
@click.option("--head", "heads", type=HeadName(allow_all=True), multiple=True, help="One or several, or all [default].")
@click.option("--fault", "names", multiple=True, help="One or several [default: the whole catalogue].")
@click.option("--family", help="Whose small models, without OUT [default: bigbird].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of weights and inputs.")
@click.option(
    "--clean-seeds", type=click.IntRange(min=1), help="Inject nothing; count false alarms over so many seeds."
)
@click.option("--list", "lists", is_flag=True, help="Print the catalogue.")
@click.option("--json", "json_file", type=_FILE, help="Write the detection matrix to this file.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Write a summary to this file.")
@click.option("--html", "html_file", type=_FILE, help="Write a page to this file.")
@no_traceback
def faults(
    out: Path | None, into: str, heads: tuple[str, ...], names: tuple[str, ...], family: str | None, **options: Any
) -> None:
    """Inject every known fault into one framework and see that the comparison with the reference catches it.

    On small models made from a seed, or on OUT, which convert wrote. Exit code 0: green without a fault, and red with
    every fault that changes the function; 1: not so; 2: bad usage or input.
    """
    from bigbird_port.families.registry import default_family, family_named

    if out and family:
        raise click.UsageError("OUT says which family its model is of: leave out --family")
    own = family_named(family) if family else default_family()
    _check_alone(options)
    if options["lists"]:
        _print_catalogue(own)
        return
    check_reports(options, json="parity faults --json")
    need("parity faults", *BOTH)
    chosen = () if "all" in heads else heads
    side = cast("Framework", into)
    if options["clean_seeds"]:
        sys.exit(0 if _print_clean(side, chosen, options["clean_seeds"], own) else FAILED)
    from parity.faults.matrix import run_faults

    def report(text: str) -> None:
        click.echo(text, err=True)

    proof = run_faults(out, side, chosen, names, options["seed"], report if sys.stderr.isatty() else None, own)
    _print_matrix(proof)
    _write(proof, options)
    sys.exit(0 if proof.passed else FAILED)


def _check_alone(options: dict[str, Any]) -> None:
    """Raise a usage error for options that another one would pass over."""
    given = given_options()
    names = {"out": "OUT", "names": "--fault", "heads": "--head", "into": "--into", "seed": "--seed"}
    names |= {f"{name}_file": f"--{name}" for name in ("json", "markdown", "html")} | {"clean_seeds": "--clean-seeds"}
    alone = {
        "lists": ("--list", set(names)),
        "clean_seeds": ("--clean-seeds", set(names) - {"heads", "into", "clean_seeds"}),
    }
    for name, (option, excluded) in alone.items():
        if options[name] and (passed_over := [names[other] for other in names if other in given & excluded]):
            raise click.UsageError(f"{option} has no use for {', '.join(passed_over)}: leave out one or the other")


def _print_catalogue(family: Family) -> None:
    from parity.faults.catalogue import faults_of

    every = family.heads
    for fault in faults_of(family).values():
        heads = "" if len(fault.heads) == len(every) else f" ({', '.join(h for h in every if h in fault.heads)})"
        click.echo(f"{fault.name}: {fault.how}{heads}: {fault.what}")


def _print_clean(into: Framework, heads: tuple[str, ...], seeds: int, family: Family) -> bool:
    """Compare without faults; return whether nothing was red."""
    from parity.faults.matrix import clean_runs

    runs = list(clean_runs(range(seeds), into, heads, family=family))
    red = [run for run in runs if run.problem]
    for run in red:
        click.echo(f"false alarm: seed {run.seed}, {run.head}: {run.problem}")
    worst = max(runs, key=lambda run: run.worst)
    click.echo(
        f"{into}: {len(red)} false alarms in {len(runs)} runs, {sum(run.compared for run in runs)} comparisons, of "
        f"{seeds} seeds; the worst error was {worst.worst:.2f} times what is allowed (seed {worst.seed}, {worst.head})"
    )
    return not red


def _print_matrix(proof: Proof) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    table = Table(box=None, pad_edge=False, title=f"faults in {proof.into}, against the reference")
    for name in ("fault", "head", "", "first tap", "times allowed", "located"):
        table.add_column(name, justify="right" if name == "times allowed" else "left", no_wrap=True)
    for found in proof.detections:
        factor = "" if found.factor is None else f"{found.factor:.3g}"
        table.add_row(found.fault, found.head, _MARKS[found.verdict], found.tap, factor, found.located)
    console.print(table)
    if proof.idle:
        console.print(f"not injected, because they touch none of these heads: {', '.join(proof.idle)}", soft_wrap=True)
    for run in proof.false_alarms:
        console.print(f"red without a fault: {run.case}, {run.head}: {run.problem}")
    for found in proof.failures:
        console.print(f"{found.verdict}: {found.fault}, {found.head}: {found.evidence}")
    counts = {name: sum(found.verdict == name for found in proof.detections) for name in _MARKS}
    console.print(
        f"{'PASSED' if proof.passed else 'FAILED'}: {len({x.fault for x in proof.detections})} faults, "
        f"{len(proof.detections)} times injected: {', '.join(f'{n} {name}' for name, n in counts.items())}; "
        f"{len(proof.clean)} comparisons without a fault, {len(proof.false_alarms)} red"
    )


def _write(proof: Proof, options: dict[str, Any]) -> None:
    """Write the matrix as plain rows; as a page or summary with those that change the function."""
    from bigbird_port.files.writing import write_whole

    if options["json_file"]:
        values = {"passed": proof.passed, "into": proof.into, "faults": proof.to_rows()}
        text = json.dumps(values, indent=1, allow_nan=False) + "\n"
        write_whole(options["json_file"], text, "parity faults --json")
    if options["markdown_file"] or options["html_file"]:
        from parity.reports.report import Report

        rows = [found.to_row() for found in proof.detections if found.verdict != "no change"]
        files = {name: options[name] for name in ("markdown_file", "html_file")}
        write_reports(Report(proof.result, None, rows), files)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--head", type=HeadName(), required=True)
@_INTO
@click.option("--against", type=click.Choice(("reference",)), default="reference", show_default=True)
@click.option("--fault", "name", help="Inject this fault first, to see it found.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of inputs and lacking weights.")
@no_traceback
def bisect(out: Path, head: str, into: str, against: str, name: str | None, seed: int) -> None:
    """Say which weight, field of the configuration, or step of the code explains what is off in OUT.

    Exit code 0: nothing is off; 1: something is; 2: bad usage or input.
    """
    from bigbird_port.models.folder import read_folder_config
    from parity.bisect.search import bisect_folder
    from parity.faults.catalogue import find_faults

    family = read_folder_config(out, "torch").family
    need("parity bisect", *BOTH)
    fault = find_faults((name,), family)[0] if name else None
    if fault and head not in fault.heads:
        able = ", ".join(other for other in family.heads if other in fault.heads)
        raise click.UsageError(f"--fault {fault.name} does not touch {head}: choose --head from {able}")
    found = bisect_folder(out, head, cast("Framework", into), seed, fault)
    for explanation in found:
        click.echo(explanation.sentence)
    if not found:
        without = f", {fault.name} changes nothing that this model computes on these inputs" if fault else ""
        click.echo(f"{into}, {head}: nothing is off{without}")
    sys.exit(FAILED if found else 0)
