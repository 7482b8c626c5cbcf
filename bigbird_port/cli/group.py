"""The command line: thin commands over public functions; each imports what it needs when it runs."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bigbird_port.cli.common import FAILED, HeadName, no_traceback
from bigbird_port.cli.convert import convert, print_report
from bigbird_port.cli.parity import convert_demo, parity, run_and_print
from bigbird_port.cli.parity_faults import bisect, faults
from bigbird_port.cli.parity_mutants import mutants
from bigbird_port.cli.signals import StoppableGroup
from bigbird_port.cli.sources import diff, inspect, verify
from bigbird_port.installed import BOTH, need, stack


def print_versions(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the versions of the stack, where they are asked for, and end."""
    if value:
        click.echo(stack())
        ctx.exit()


@click.group(cls=StoppableGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_versions,
    help="Show the versions of this program and of all that it computes with, and exit.",
)
def main() -> None:
    """Convert BigBird checkpoints to PyTorch and Flax, and prove that the model is the same."""


main.add_command(convert)
for command in (inspect, diff, verify):
    main.add_command(command)
main.add_command(parity)
parity.add_command(faults)
parity.add_command(bisect)
parity.add_command(mutants)


@main.command()
@click.option("--family", "family_name", default="bigbird", show_default=True, help="Of models: bigbird or pegasus.")
@click.option("--head", type=HeadName(), help="Only the weights of one head.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@no_traceback
def schema(family_name: str, head: str | None, as_json: bool) -> None:
    """Print the weight schema: every weight's names, axes and layouts."""
    from bigbird_port.families.registry import family_named
    from bigbird_port.schema.table import schema_records

    family = family_named(family_name)
    if head is not None:
        family.head(head)
    records = schema_records(family, head)
    if as_json:
        click.echo(json.dumps(records, indent=1))
        return
    sizes = ", ".join(f"{axis} = {size}" for axis, size in family.axes.items())
    legend = (
        f"Axes: {sizes}; (a b) is one axis of size a x b, or two. {{i}}: layer; {{scope}}: usually "
        f"{family.scope(family.config())}. "
        f"Names of torch and flax stand under {family.prefix} where the base model is a part of the head's model."
    )
    click.echo(click.wrap_text(legend, width=100) + "\n")
    for record in records:
        print_record(record)


def print_record(record: dict[str, Any]) -> None:
    """Print one row of the schema."""
    lacking = {"required": "an error", "initialise": "initialised from the seed", "zeros": "zeros"}[record["fill"]]
    click.echo(f"{record['name']}  [{record['axes']}]{conditions(record['when'])}")
    click.echo(f"    original: {' | '.join(record['original']) or '(has none)'}")
    click.echo(f"    torch:    {record['torch']}  [{record['torch_axes']}]")
    if record["tied"]:
        click.echo(f"              the same values: {record['tied']['torch']} ({', '.join(record['tied']['heads'])})")
    click.echo(f"    flax:     {record['flax']}  [{record['flax_axes']}]")
    unused = f"; in torch, unused: {', '.join(record['torch_unused_heads'])}" if record["torch_unused_heads"] else ""
    click.echo(f"    heads:    {', '.join(record['heads'])}{unused}")
    click.echo(f"    lacking:  {lacking}{conditions(record['fill_when'])}")


def conditions(pairs: Sequence[tuple[str, Any]]) -> str:
    """Configuration values on which something depends, in words."""
    return f", only where {' and '.join(f'{name} is {value}' for name, value in pairs)}" if pairs else ""


@main.command()
@no_traceback
def demo() -> None:
    """Convert a small checkpoint that the original code wrote, and run parity for all eight heads."""
    need("the demo", *BOTH)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        print_report(convert_demo(out))
        click.echo()
        passed = run_and_print(out, ("all",), None, {"no_conditions": True}, taps=False)
    sys.exit(0 if passed else FAILED)
