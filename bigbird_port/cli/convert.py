"""The command that converts: its options, its progress bar, and what it says at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bigbird_port.cli.common import HeadName, SourcePath, follow_links, no_traceback
from bigbird_port.files.sizes import parse_size

_PROGRAMS = ("onnx", "stablehlo", "saved-model")  # exports.EXPORTS, likewise
_POSITION_METHODS = ("tile", "interpolate")  # positions.METHODS, without what that module imports


class Size(click.ParamType):
    """A number of bytes such as 500MB or 2GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Targets(click.ParamType):
    """A comma-separated list of targets."""

    name = "targets"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the targets' names."""
        if isinstance(value, tuple):
            return value
        known = ("torch", "flax", "tf", "neutral", *_PROGRAMS)
        names = tuple(name.strip() for name in value.split(","))
        for name in names:
            if name not in known:
                self.fail(f"unknown target {name!r}: expected some of {','.join(known)}", param, ctx)
        return names


@click.command()
@click.argument("source", type=SourcePath())
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=Targets(),
    default="torch,flax",
    show_default=True,
    help="Some of torch,flax,tf,neutral, and of the programs onnx,stablehlo,saved-model.",
)
@click.option("--head", type=HeadName(), help="Which model to write [default: what the source holds].")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True)
@click.option(
    "--length", type=click.IntRange(min=1), help="Tokens of a text in programs [default: any, or the pattern's]."
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The original's flags, or config.json.")
@click.option("--num-attention-heads", type=click.IntRange(min=1), help="Where neither a file nor the kernels tell.")
@click.option("--vocab", type=click.Path(path_type=Path), help="SentencePiece file [default: the source's].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For weights that are lacking.")
@click.option("--max-shard-size", type=Size(), help="Split torch and tf files, as 500MB or 2GiB [default: one file].")
@click.option("--flax-format", type=click.Choice(["msgpack", "orbax"]), default="msgpack", show_default=True)
@click.option("--tf-names", type=click.Choice(["current", "bert"]), default="current", show_default=True)
@click.option("--max-position-embeddings", type=click.IntRange(min=1), help="More positions than the source's.")
@click.option(
    "--positions", type=click.Choice(_POSITION_METHODS), default="tile", show_default=True, help="How to make them."
)
@click.option("--subtree", metavar="NAME", help="Which part of SOURCE, where it holds several models.")
@click.option("--ema", is_flag=True, help="Take moving averages instead of the weights.")
@click.option("--optimizer", is_flag=True, help="Carry the optimizer's slots and step: training goes on.")
@click.option("--fresh-optimizer", is_flag=True, help="Write an optimizer's state with empty slots and step 0.")
@click.option("--rebuild-factors", is_flag=True, help="Adafactor's factors of 3-D kernels: make those of matrices.")
@click.option("--learning-rate", type=float, help="The peak, where no flags tell it (or another one).")
@click.option("--num-train-steps", type=click.IntRange(min=1), help="Where the rate ends, likewise.")
@click.option("--num-warmup-steps", type=click.IntRange(min=0), help="How long the rate rises, likewise.")
@click.option("--drop-unused-biases", is_flag=True, help="Leave out biases that use_bias False does not read.")
@click.option("--allow-nonfinite", is_flag=True, help="Convert weights that hold NaN or Inf as they are.")
@follow_links
@click.option("--no-checksums", "checksums", flag_value=False, default=True, help="Faster; proves nothing.")
@click.option("--dry-run", "dry", is_flag=True, help="Read and check everything, write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace OUT, if convert wrote it and all that is in it.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the report to this file; - is the output."
)
@no_traceback
def convert(
    source: Path,
    out: Path,
    max_shard_size: int | None,
    flax_format: Any,
    tf_names: Any,
    dry: bool,
    overwrite: bool,
    quiet: bool,
    json_file: Path | None,
    optimizer: bool,
    fresh_optimizer: bool,
    rebuild_factors: bool,
    learning_rate: float | None,
    num_train_steps: int | None,
    num_warmup_steps: int | None,
    **options: Any,
) -> None:
    """Convert SOURCE into OUT/torch and OUT/flax (or what --to says), and verify them by reading back.

    SOURCE is a TensorFlow checkpoint (prefix, .index file or folder), a SavedModel, a transformers or Flax model
    folder, a weight file, or what this command wrote. OUT/manifest.json says what became of every name in it.
    Programs (docs/export.md) are run by their own runtime, and held against the float64 reference, before they appear.
    """
    from bigbird_port.files.digests import FileDigests
    from bigbird_port.files.outputs.replaceable import check_replaceable
    from bigbird_port.files.writing import check_writable, write_whole

    given = {
        "learning_rate": learning_rate,
        "num_train_steps": num_train_steps,
        "num_warmup_steps": num_warmup_steps,
    }
    check_training_options(optimizer or fresh_optimizer, rebuild_factors, given)
    programs = [name for name in _PROGRAMS if name in options["to"]]
    if options["length"] and not programs:
        raise ValueError(f"--length: of use with --to {', '.join(_PROGRAMS)} alone: add one of them, or leave it out")
    check_replaceable(out, overwrite, source)
    if json_file:
        check_writable(json_file, "convert --json", out)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing is multiplied here: its threads would only spin up
    with FileDigests() as digests:
        if options["checksums"] and not dry:
            begin(source, digests)
        from bigbird_port.conversion.convert import Settings, dry_run
        from bigbird_port.conversion.convert import convert as run_convert
        from bigbird_port.conversion.targets import Choices
        from bigbird_port.files.memory import keep_freed_memory
        from bigbird_port.training.carried import Asked

        keep_freed_memory()
        training = Asked(fresh_optimizer, rebuild_factors, given) if optimizer or fresh_optimizer else None
        settings = Settings(choices=Choices(max_shard_size, flax_format, tf_names), training=training, **options)
        exporter = exporter_of(programs)
        if dry:
            report = dry_run(source, out, settings, overwrite=overwrite, exporter=exporter)
        else:
            with progress_bar(source, quiet) as progress:
                beside = {"progress": progress, "digests": digests, "exporter": exporter}
                report = run_convert(source, out, settings, overwrite=overwrite, **beside)
    if json_file:
        write_whole(json_file, json.dumps(report_values(report), indent=1) + "\n", "convert --json")
    if not quiet:
        print_report(report)


def exporter_of(programs: list[str]) -> Any:
    """What makes these programs; None where there are none, because it knows frameworks."""
    if not programs:
        return None
    from parity.exports.exporter import Exporter

    return Exporter()


def check_training_options(wanted: bool, rebuild: bool, given: dict[str, Any]) -> None:
    """Raise ValueError for options of a training state where none is asked for."""
    names = [name for name, value in {"rebuild_factors": rebuild or None, **given}.items() if value is not None]
    if names and not wanted:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise ValueError(f"{options}: of use with --optimizer or --fresh-optimizer alone: add one of them")


def begin(source: Path, digests: Any) -> None:
    """Begin to hash what will be hashed, on a second core: the imports that a conversion needs take a while."""
    from bigbird_port.formats.tensorflow.locate import find_shards

    for shard in find_shards(source):
        digests.sha256(shard)


@contextmanager
def progress_bar(source: Path, quiet: bool) -> Iterator[Any]:
    """Bytes and tensors on standard error, where that is a terminal; gives what to call for each weight."""
    if quiet or not os.isatty(2):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.fields[count]} tensors"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(source.name, total=None, count=0)

        def advance(name: str, size: int, total: int) -> None:
            bar.update(task, advance=size, total=total, count=bar.tasks[0].fields["count"] + 1)

        yield advance


def print_report(report: Any) -> None:
    """Say what a conversion did, or a dry run would do."""
    from bigbird_port.conversion.targets import left_out

    plan = report.plan
    for note in plan.notes:
        click.echo(note)
    done = f"-> {report.out}" if report.out else "-> nothing was written (dry run)"
    click.echo(f"{plan.source.opened.path} {done}: a {plan.head} model, {plan.settings.dtype}")
    fates = [fate.what for fate in plan.match.fates.values()]
    folders = _folders(plan)
    verb = f"converted, every bit read back from {folders}" if report.out else f"read and found whole, for {folders}"
    if not plan.settings.checksums:
        verb = f"copied to {folders}, nothing verified (--no-checksums)"
    click.echo(f"  {fates.count('converted')} variables {verb}")
    if plan.training:
        state, count = plan.training.state, len(plan.training.slots)
        rebuilt = sum(slot.how == "rebuilt" for slot in plan.training.slots)
        made = f", {rebuilt} of them rebuilt from other factors" if rebuilt else ""
        click.echo(f"  {count} slots of {state.training.optimizer} at step {state.global_step} {verb}{made}")
    for name, export in (report.values or {}).get("exports", {}).items():
        found = export["verified"]
        shapes = " and ".join("x".join(map(str, shape)) for shape in found["shapes"])
        click.echo(
            f"  {name}/ runs, and is within {found['largest_error']:.2g} of the {found['against']} on {shapes} tokens"
        )
    for target in plan.kept:
        lacking = left_out(target.name, plan.config, plan.head)
        for reason in sorted(set(lacking.values())):
            names = [name for name, why in lacking.items() if why == reason]
            click.echo(f"  {target.name}/ is without {', '.join(names)}: {reason}")
    for what in ("alias", "ignored", "unused"):
        reasons = [fate.detail for fate in plan.match.fates.values() if fate.what == what]
        for reason in sorted(set(reasons)):
            click.echo(f"  {reasons.count(reason)} {what}: {reason}")
    for fill, text in (
        ("initialise", f"initialised from seed {plan.settings.seed}"),
        ("zeros", "zero, because the original has none"),
    ):
        names = [name for name, how in plan.match.fills.items() if how == fill]
        if names:
            click.echo(f"  {len(names)} weights {text}: {', '.join(names)}")
    rounded = {name: rounding for name, rounding in report.written.roundings.items() if rounding.error}
    if rounded:
        name = max(rounded, key=lambda name: rounded[name].error)
        worst = rounded[name]
        click.echo(
            f"  {len(rounded)} rounded to {plan.settings.dtype}, at most by {worst.error:.3g}: "
            f"{worst.value:.6g} in {name}"
        )
    for finding in report.findings:
        click.echo(f"  warning: {finding.text}")


def _folders(plan: Any) -> str:
    """The targets' folders, with how many of the source's variables are in each where not all of them are."""
    if not plan.kept:
        return " and ".join(f"{name}/" for name in plan.exports)
    counts = [sum(name in target.places for name in plan.match.sources) for target in plan.kept]
    told = len({len(plan.match.sources), *counts}) > 1
    pairs = zip(plan.kept, counts, strict=True)
    return " and ".join(f"{target.name}/ ({count})" if told else f"{target.name}/" for target, count in pairs)


def report_values(report: Any) -> dict[str, Any]:
    """The report as JSON values: the manifest, and what only a report says."""
    from bigbird_port.conversion.targets import left_out

    plan = report.plan
    return {
        "version": 1,
        "out": report.out and str(report.out),
        "dry_run": report.out is None,
        "notes": list(plan.notes),
        "head": plan.head,
        "targets": {
            target.name: {
                "bytes": target.size,
                "files": {file.name: file.size for file in target.files},
                "weights": len(target.places),
                "left_out": left_out(target.name, plan.config, plan.head),
            }
            for target in plan.kept
        },
        "source_names": {name: {"fate": fate.what, "detail": fate.detail} for name, fate in plan.match.fates.items()},
        "fills": plan.match.fills,
        "roundings": {name: asdict(rounding) for name, rounding in report.written.roundings.items()},
        "findings": [asdict(finding) for finding in report.findings],
        "manifest": report.values,
    }
