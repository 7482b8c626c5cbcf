"""``parity mutants``: change the models' own code by rule, and count what the comparison sees."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from bigbird_port.cli.common import FAILED, no_traceback
from bigbird_port.installed import BOTH, need

if TYPE_CHECKING:
    from parity.mutants.scope import Side
    from parity.mutants.score import Counts, Score

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
_COLUMNS = (
    "file",
    "mutants",
    "default",
    "thorough",
    "never",
    "score",
    "thorough",
    "raised",
    "timeout",
    "same",
    "not run",
)


@click.command()
@click.option("--into", type=click.Choice(("torch", "flax")), default="torch", show_default=True)
@click.option("--only", default="", help="Mutants of this file or folder alone, such as models_torch/attention.")
@click.option("--sample", "size", type=click.IntRange(min=1), help="So many mutants, drawn by --seed [default: all].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sample.")
@click.option("--seconds", type=click.FloatRange(min=1), help="Begin no mutant after so many seconds.")
@click.option("--default-only", is_flag=True, help="Leave out the thorough stages: they are counted as never.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes at a time [default: one for each core].")
@click.option("--least", type=click.FloatRange(0, 1), help="Fail if a plain run catches a smaller share, such as 0.9.")
@click.option("--json", "json_file", type=_FILE, help="Write every mutant and what became of it to this file.")
@click.option("--list", "lists", is_flag=True, help="Print the mutants and run none.")
@no_traceback
def mutants(
    into: str, size: int | None, least: float | None, json_file: Path | None, lists: bool, **chosen: object
) -> None:
    """Run the comparison on mutants of the models' own code, and say how many it catches.

    A mutant is a small change by rule. One that changes nothing that a call, a gradient, a cache or a loss returns does
    not count. Exit code 0: done; 1: fewer were caught than --least asks for, or nothing was counted; 2: bad usage.
    """
    from bigbird_port.files.writing import check_writable, write_whole
    from parity.mutants.run import Wanted, list_mutants, run_mutants

    wanted = Wanted(
        cast("Side", into),
        only=str(chosen["only"]),
        size=size,
        seed=cast(int, chosen["seed"]),
        seconds=cast("float | None", chosen["seconds"]),
        thorough=not chosen["default_only"],
        workers=cast("int | None", chosen["workers"]) or os.cpu_count() or 1,
    )
    if lists:
        for mutant in list_mutants(wanted)[0]:
            click.echo(mutant.name)
        return
    need("parity mutants", *BOTH)
    if json_file:
        check_writable(json_file, "parity mutants --json")
    score = run_mutants(wanted, lambda text: click.echo(text, err=True))
    _print(score)
    if json_file:
        write_whole(json_file, json.dumps(score.to_json(), indent=1) + "\n", "parity mutants --json")
    found = score.total.score
    if found is None:
        click.echo("FAILED: no mutant changed anything, so nothing was counted")
    elif least is not None and found < least:
        click.echo(f"FAILED: a plain run catches {found:.1%}, fewer than the {least:.1%} asked for with --least")
    sys.exit(FAILED if found is None or (least is not None and found < least) else 0)


def _print(score: Score) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    table = Table(box=None, pad_edge=False, title=f"mutants of {score.into}")
    for i, name in enumerate(_COLUMNS):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for file, counts in score.by_file().items():
        table.add_row(*_cells(file, counts))
    table.add_row(*_cells("all", score.total))
    console.print(table)
    for outcome in score.survivors:
        seen = "; ".join(f"{probe} ({what})" for probe, what in outcome.seen_by.items())
        console.print(f"never caught: {outcome.mutant.name}\n    seen by: {seen}", soft_wrap=True, markup=False)
    if score.left:
        console.print(f"{score.left} of the mutants that were drawn were not begun in time")
    console.print(f"{len(score.outcomes)} of {score.of} mutants were run (seed {score.seed})")


def _cells(file: str, counts: Counts) -> tuple[str, ...]:
    shares = ("-" if share is None else f"{share:.1%}" for share in (counts.score, counts.thorough_score))
    ran = counts.changing + counts.same + counts.not_run
    numbers = (ran, counts.default, counts.thorough, counts.survived)
    rest = (counts.raises, counts.timeouts, counts.same, counts.not_run)
    return (file, *map(str, numbers), *shares, *map(str, rest))
