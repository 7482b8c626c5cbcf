"""The command line: thin commands over public functions; each imports what it needs when it runs."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

import bigbird_port
from bigbird_port.heads import HEADS, find_head

FAILED = 1


class HeadName(click.ParamType):
    """A head's name or alias; with ``allow_all`` also "all"."""

    name = "head"

    def __init__(self, allow_all: bool = False) -> None:
        self.allow_all = allow_all

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the head's name, or "all"."""
        if self.allow_all and value == "all":
            return "all"
        try:
            return find_head(value).name
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What help shows."""
        return "HEAD"


class BadInput(click.ClickException):
    """Input that cannot be used: a message, no traceback."""

    exit_code = 2


def no_traceback(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that bad input raises into a message and exit code 2."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # a reader that has seen enough, such as head: click ends quietly
        except (ValueError, OSError) as error:
            raise BadInput(str(error)) from None

    return guarded


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(bigbird_port.__version__, prog_name="bigbird-port")
def main() -> None:
    """Convert BigBird checkpoints to PyTorch and Flax, and prove that the model is the same."""


@main.command()
@click.argument("tf_ckpt", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--head", type=HeadName(), help="Which model to write [default: what the checkpoint holds].")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The original's flags, or config.json.")
@click.option("--num-attention-heads", type=click.IntRange(min=1), help="Where neither a file nor the kernels tell.")
@click.option("--vocab", type=click.Path(path_type=Path), help="SentencePiece file [default: the checkpoint's].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For weights that are lacking.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@no_traceback
def convert(tf_ckpt: Path, out: Path, **options: Any) -> None:
    """Convert a TensorFlow checkpoint (prefix, .index file or folder) into OUT/torch and OUT/flax.

    Both are read back and compared bit for bit; OUT/manifest.json says what became of every variable.
    """
    from bigbird_port.convert import convert as run_convert

    print_plan(run_convert(tf_ckpt, out, **options), out)


def print_plan(plan: Any, out: Path) -> None:
    """Say what a conversion did."""
    fates = [fate.what for fate in plan.match.fates.values()]
    for note in plan.notes:
        click.echo(note)
    click.echo(f"{plan.bundle.prefix} -> {out}: a {plan.head} model")
    click.echo(f"  {fates.count('converted')} variables converted, every bit read back from torch/ and flax/")
    for what in ("ignored", "unused"):
        reasons = [fate.detail for fate in plan.match.fates.values() if fate.what == what]
        for reason in sorted(set(reasons)):
            click.echo(f"  {reasons.count(reason)} {what}: {reason}")
    for fill, text in (
        ("initialise", f"initialised from seed {plan.seed}"),
        ("zeros", "zero, as the original has none"),
    ):
        names = [name for name, how in plan.match.fills.items() if how == fill]
        if names:
            click.echo(f"  {len(names)} weights {text}: {', '.join(names)}")


@main.command()
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--head", "heads", type=HeadName(allow_all=True), multiple=True, help="One or several, or all [default].")
@click.option("--length", type=click.IntRange(min=1), help="Tokens [default: max_encoder_length, or 1024].")
@click.option("--batch", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of inputs and lacking weights.")
@click.option("--inputs", "inputs_file", type=click.Path(path_type=Path), help="Own inputs: .safetensors or .json.")
@click.option("--text", "text_file", type=click.Path(path_type=Path), help="A text, for the model's tokenizer.")
@click.option("--question", help="A question, with --context.")
@click.option("--context", "context_file", type=click.Path(path_type=Path), help="The text that answers --question.")
@click.option(
    "--golden", "golden_file", type=click.Path(path_type=Path), help="A case of the original to compare with."
)
@click.option("--max-encoder-length", type=click.IntRange(min=1), help="Use the attention pattern of this length.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
@no_traceback
def parity(out: Path | None, heads: tuple[str, ...], json_file: Path | None, **options: Any) -> None:
    """Run torch and Flax on the same inputs and compare every layer.

    OUT is what convert wrote; without it, the shipped demo checkpoint is converted first. Exit code 0: every tap of
    every head is within tolerance; 1: a difference, NaN, or nothing compared; 2: bad usage or input.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "demo"
            convert_demo(out)
            passed = run_and_print(out, heads, json_file, options, taps=True)
    else:
        passed = run_and_print(out, heads, json_file, options, taps=True)
    sys.exit(0 if passed else FAILED)


SOURCES = {
    "golden_file": "--golden",
    "inputs_file": "--inputs",
    "text_file": "--text",
    "question": "--question",
}


def check_sources(options: dict[str, Any]) -> None:
    """Raise a usage error where options of parity exclude or need each other."""
    given = [option for name, option in SOURCES.items() if options.get(name)]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: each brings the inputs")
    if bool(options.get("question")) != bool(options.get("context_file")):
        raise click.UsageError("--question and --context go together")
    fixed = [option for option in ("--golden", "--inputs") if option in given]
    if fixed and options.get("length"):
        raise click.UsageError(f"{fixed[0]} brings its own inputs: leave out --length")
    if "--golden" in given and options.get("max_encoder_length"):
        raise click.UsageError("--golden brings its own pattern: leave out --max-encoder-length")


def given_inputs(out: Path, options: dict[str, Any]) -> Any:
    """Read the inputs that --inputs, --text or --question name; None if they are to be made."""
    from parity.inputs import read_inputs

    if options.get("inputs_file"):
        return read_inputs(options["inputs_file"])
    if not (options.get("text_file") or options.get("question")):
        return None
    from parity.text import question_inputs, text_inputs

    length = options.get("length") or options.get("max_encoder_length")
    if options.get("text_file"):
        return text_inputs(out, options["text_file"], length)
    return question_inputs(out, options["question"], options["context_file"], length)


def run_and_print(
    out: Path, heads: tuple[str, ...], json_file: Path | None, options: dict[str, Any], taps: bool
) -> bool:
    """Run parity, print its tables, write its JSON; return whether it passed."""
    from parity.golden import read_golden
    from parity.report import make_console, print_summary, print_taps, to_json
    from parity.run import Options, run_parity

    check_sources(options)
    golden = read_golden(options["golden_file"]) if options.get("golden_file") else None
    pattern_length = options.get("max_encoder_length")
    run_options = Options(
        length=options.get("length"),
        batch=options.get("batch", 2),
        seed=options.get("seed", 0),
        inputs=given_inputs(out, options),
        golden=golden,
        overrides={"max_encoder_length": pattern_length} if pattern_length else {},
    )
    default = (golden.head,) if golden else tuple(HEADS)
    chosen = tuple(HEADS) if "all" in heads else tuple(dict.fromkeys(heads)) or default
    result = run_parity(out, chosen, run_options)
    console = make_console()
    if taps:
        print_taps(console, result)
    print_summary(console, result)
    if json_file:
        json_file.write_text(json.dumps(to_json(result), indent=1) + "\n", encoding="utf-8")
    return result.passed


@main.command()
@click.option("--head", type=HeadName(), help="Only the weights of one head.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@no_traceback
def schema(head: str | None, as_json: bool) -> None:
    """Print the weight schema: every weight's names, axes and layouts."""
    from bigbird_port.schema import AXES, schema_records

    records = schema_records(head)
    if as_json:
        click.echo(json.dumps(records, indent=1))
        return
    sizes = ", ".join(f"{axis} = {size}" for axis, size in AXES.items())
    legend = (
        f"Axes: {sizes}; (a b) is one axis of size a x b, or two. {{i}}: layer; {{scope}}: usually bert. Names of "
        "torch and flax stand under bert where the base model is a part of the head's model."
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
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        print_plan(convert_demo(out), out)
        click.echo()
        passed = run_and_print(out, ("all",), None, {}, taps=False)
    sys.exit(0 if passed else FAILED)


def convert_demo(out: Path) -> Any:
    """Convert the checkpoint that is shipped with the package."""
    from bigbird_port.convert import convert as run_convert

    return run_convert(Path(os.path.dirname(__file__)) / "demo_checkpoint", out)
