"""``parity OUT --training``: the same optimizer steps by both frameworks and the reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bigbird_port.cli.parity_reports import report_of, write_reports

# What has a meaning with --training; every other option is refused.
_TAKEN = {
    *("out", "heads", "training", "steps", "length", "batch", "seed", "golden_file", "against", "with_faults"),
    *("json_file", "html_file", "junit_file", "markdown_file"),
}


def check_training_usage(options: Mapping[str, Any], given: Collection[str], heads: tuple[str, ...]) -> None:
    """Raise a usage error for options that mean nothing with --training, and for --steps without it."""
    if not options["training"]:
        if "steps" in given:
            raise click.UsageError("--steps is of use with --training alone")
        return
    if others := sorted(set(given) - _TAKEN):
        names = ", ".join(f"--{name.replace('_file', '').replace('_', '-')}" for name in others)
        raise click.UsageError(f"--training takes no {names}: leave it out")
    if options.get("golden_file") and set(given) & {"length", "batch", "seed"}:
        raise click.UsageError("--golden brings its own batches: leave out --length, --batch and --seed")
    if len(heads) > 1 or "all" in heads:
        raise click.UsageError("--training is of one head: name one, or leave --head out")


def calibrate_training(out: Path | None, others: Sequence[str]) -> None:
    """Measure the tolerances of training, and write them to a file; say the worst of each kind."""
    from bigbird_port.files.writing import check_writable
    from parity.training.tolerances import write_table

    if out is None or others:
        raise click.UsageError("--training measures one table: give --out FILE, and none of the other options")
    check_writable(out, "parity calibrate --out")
    for entry in write_table(out, 4, click.echo).values():
        click.echo(f"{entry.key}: worst {entry.worst:.1e} of {entry.samples}, {entry.at}")


def run_and_print_training(out: Path, heads: tuple[str, ...], options: Mapping[str, Any]) -> bool:
    """Take the steps, print what was found, write its reports; return whether it passed."""
    from dataclasses import replace

    from parity.reports.terminal import make_console, print_report
    from parity.training.curves import steps_table
    from parity.training.faults import detection_matrix
    from parity.training.golden import read_steps
    from parity.training.run import TrainingOptions, run_training

    golden = read_steps(options["golden_file"]) if options.get("golden_file") else None
    chosen = TrainingOptions(
        steps=options["steps"],
        batch=options["batch"],
        length=options.get("length"),
        seed=options["seed"],
        who=tuple(options.get("against") or ("reference", "torch", "flax")),
        golden=golden,
    )
    result = run_training(out, heads[0] if heads else None, chosen)
    report = report_of(result, out)
    if options.get("with_faults"):
        report = replace(report, detection=detection_matrix(out, replace(chosen, golden=None), click.echo))
    for line in steps_table(result):
        click.echo(line)
    print_report(make_console(), report, taps=False)
    write_reports(report, {name: options.get(name) for name in _TAKEN if name.endswith("_file")})
    missed = [row for row in report.detection or () if not row["caught"]]
    return result.passed and not missed
