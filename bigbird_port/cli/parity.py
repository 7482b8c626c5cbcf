"""The parity commands: ``parity OUT`` runs the comparison, ``parity <command>`` what stands beside it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import bigbird_port
from bigbird_port.cli.common import FAILED, HeadName, follow_links, no_traceback
from bigbird_port.cli.parity_mesh import MeshSizes, mesh_line, mesh_options, missed, with_faults
from bigbird_port.cli.parity_reports import (
    baseline,
    check_reports,
    read_matrix,
    report,
    report_of,
    report_options,
    write_reports,
)
from bigbird_port.cli.parity_training import calibrate_training, check_training_usage, run_and_print_training
from bigbird_port.cli.parity_usage import check_usage, given_options, heads_of_programs, is_plain, with_programs
from bigbird_port.installed import BOTH, need

DTYPES = ("float32", "bfloat16", "float16", "float64")
WITNESSES = (
    "Who is compared: golden, reference, torch, flax, transformers, onnx, exported. [default: torch,flax,reference]"
)


class Numbers(click.ParamType):
    """Numbers of at least 1, separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isdigit() and int(part) for part in parts):
            self.fail(f"{value!r} is not a list of numbers of at least 1, such as 512,768", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


class Names(click.ParamType):
    """Names, separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the names."""
        return value if isinstance(value, tuple) else tuple(part.strip() for part in value.split(","))


class DefaultGroup(click.Group):
    """A group whose first command, "run", is meant where no other is named: ``parity OUT`` is ``parity run OUT``."""

    default = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before arguments that do not begin with a command."""
        if not args or args[0] not in self.commands:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultGroup)
def parity() -> None:
    """Run torch, Flax and a float64 reference on the same inputs and compare every layer."""


@parity.command(
    epilog="Beside it: parity faults, mutants, bisect, calibrate, report, baseline save and check; each has --help."
)
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
@click.option("--attention-type", type=click.Choice(("block_sparse", "original_full")), help="Override the model's.")
@click.option("--random-blocks", type=click.Choice(("original", "transformers")), help="Override the model's.")
@click.option("--lengths", type=Numbers(), default=(), help="Several, 512,768,..: each with its own pattern.")
@click.option("--batches", type=Numbers(), default=(), help="Several batch sizes, 1,2,..")
@click.option("--adversarial", is_flag=True, help="Inputs that are hard on an implementation, in place of seeded ones.")
@click.option("--against", type=Names(), help=WITNESSES)
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of both frameworks.")
@click.option("--device", help="Of both frameworks: cpu, cuda, cuda:1 or auto. [default: cpu]")
@click.option("--torch-device", help="cpu, cuda, cuda:1 or auto; wins over --device.")
@click.option("--flax-device", help="cpu, cuda, tpu, tpu:1 or auto; wins over --device.")
@click.option("--mesh", type=MeshSizes(), help="Flax on several devices too: data=2,model=2,sequence=2.")
@click.option("--with-faults", is_flag=True, help="Then inject each fault of --mesh or --training: it must be caught.")
@click.option("--no-local", is_flag=True, help="Do not feed each layer the reference's input as well: half the time.")
@click.option("--no-losses", is_flag=True, help="Do not compare losses.")
@click.option("--no-calls", is_flag=True, help="Do not call the whole models as well.")
@click.option("--no-conditions", is_flag=True, help="Only the passes: leave out the ways in which users call models.")
@click.option("--thorough", is_flag=True, help="More conditions, which take minutes: forced paths, half precision, ..")
@click.option("--gradients", is_flag=True, help="Compare gradients of weights and taps (small models only).")
@click.option("--training", is_flag=True, help="Take optimizer steps from OUT's state, and compare behind each.")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, help="How many, with --training.")
@click.option("--decoding", is_flag=True, help="Compare causal-lm token by token with all tokens at once.")
@click.option("--layers", is_flag=True, help="Print one row a layer and tap of every head, in place of every row.")
@click.option("--tolerances", type=click.Path(path_type=Path), help="Entries that win over the table that is shipped.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the first failing layer's tensors in this folder.")
@click.option("--faults", "matrix", type=click.Path(path_type=Path), help="A detection matrix, for the reports.")
@follow_links
@report_options()
@no_traceback
def run(out: Path | None, heads: tuple[str, ...], json_file: Path | None, **options: Any) -> None:
    """Run torch and Flax on the same inputs and compare every layer.

    OUT is what convert wrote; without it, the shipped demo checkpoint is converted first. Then the model is called in
    the ways in which users call it (docs/conditions.md). Exit code 0: everything is within tolerance; 1: a difference,
    NaN, or nothing compared; 2: bad usage or input.
    """
    check_training_usage(options, given_options(), heads)
    options = with_programs(options, given_options())
    check_usage(options, given_options())
    check_files(options | {"json_file": json_file})
    need("parity", *BOTH)
    check_devices(options)
    if options["training"]:
        if out is None:
            raise ValueError("--training: name the folder that convert --optimizer wrote")
        sys.exit(0 if run_and_print_training(out, heads, options | {"json_file": json_file}) else FAILED)
    if out is not None and not proves_build(options):
        passed = run_and_print(out, heads, json_file, options, taps=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            demo = Path(folder) / "demo"
            if out is None:
                convert_demo(demo)
            passed = run_and_print(out or demo, heads, json_file, options, taps=True, demo=demo)
    sys.exit(0 if passed else FAILED)


@parity.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this file.")
@click.option(
    "--seed", "seeds", type=click.IntRange(min=0), multiple=True, help="Several [default: those of the table]."
)
@click.option("--size", "sizes", multiple=True, help="Names of sizes, several [default: all].")
@click.option("--dtype", "dtypes", type=click.Choice(DTYPES[:3]), multiple=True, help="Several [default: all].")
@click.option("--device", "devices", multiple=True, help="cpu, cuda, cuda:1 or tpu, several [default: cpu].")
@click.option(
    *("--framework", "--witness", "witnesses"),
    type=click.Choice(("torch", "flax")),
    multiple=True,
    help="Several [default: those that run on the device].",
)
@click.option("--family", default="", help="Of models: its table is its own [default: bigbird].")
@click.option("--training", is_flag=True, help="The table of parity --training instead: four seeds of every optimizer.")
@no_traceback
def calibrate(out: Path | None, training: bool, **chosen: Any) -> None:
    """Measure how far torch and Flax are from the float64 reference, over seeds and sizes: the table of tolerances.

    Each entry keeps the worst that was measured, on how many samples, the factor, and the reasons. All of it
    takes minutes; devices other than this machine's CPU need a table of their own, for parity --tolerances FILE.
    """
    need("parity calibrate", *BOTH)
    if training:
        calibrate_training(out, [name for name, values in chosen.items() if values])
        return
    from parity.measure.calibration.calibrate import calibrate as measure_table

    table = measure_table(out, **{name: values for name, values in chosen.items() if values}, report=click.echo)
    for entry in table.entries.values():
        click.echo(f"{entry.key}: worst {entry.worst:.1e} of {entry.samples}, bound {entry.bound:.1e}")
    for key, why in table.unjudged.items():
        click.echo(f"{key}: no entry: {why}")


parity.add_command(report)
parity.add_command(baseline)


def check_files(options: dict[str, Any]) -> None:
    """Raise ValueError, before anything runs, where a file of an option may not be written or cannot be read."""
    from bigbird_port.files.writing import check_kept_folder

    check_reports(options)
    if options.get("matrix"):
        read_matrix(options["matrix"])
    if options.get("keep"):
        check_kept_folder(options["keep"])


def check_devices(options: dict[str, Any]) -> None:
    """Raise ValueError, before anything runs, for a device that is not there or has not the number type."""
    from parity.measure.tolerances import read_table
    from parity.run.conditions import DEFAULT_WITNESSES, Options
    from parity.witnesses.devices import may_lack_cpu

    device, given = options.get("device") or "cpu", options.get("tolerances")
    on = [options.get(name) or device for name in ("torch_device", "flax_device")]
    if options.get("training") or (set(on) == {"cpu"} and not may_lack_cpu()):
        return
    mesh = options.get("mesh")
    chosen = Options(
        witnesses=options.get("against") or (("flax", "reference") if mesh else DEFAULT_WITNESSES),
        torch_device=on[0],
        flax_device=on[1],
        dtype=options.get("dtype", "float32"),
        tolerances=read_table(given) if given else None,
    )
    if "golden" not in chosen.witnesses:
        _ = chosen.settings


def proves_build(options: dict[str, Any]) -> bool:
    """Whether the demo is held against the original before the model is run."""
    return is_plain(options) and not options.get("no_conditions")


OVERRIDES = ("max_encoder_length", "attention_type", "random_blocks")


def given_inputs(out: Path, options: dict[str, Any]) -> Any:
    """Read the inputs that --inputs, --text or --question name; None if they are to be made."""
    from parity.given.inputs import read_inputs

    if options.get("inputs_file"):
        return read_inputs(options["inputs_file"], click.echo)
    if not (options.get("text_file") or options.get("question")):
        return None
    from parity.given.text import question_inputs, text_inputs

    length = options.get("length") or options.get("max_encoder_length")
    if options.get("text_file"):
        return text_inputs(out, options["text_file"], length)
    return question_inputs(out, options["question"], options["context_file"], length)


def run_and_print(
    out: Path,
    heads: tuple[str, ...],
    json_file: Path | None,
    options: dict[str, Any],
    taps: bool,
    demo: Path | None = None,
) -> bool:
    """Run parity, print its tables, write its reports; return whether it passed.

    demo: where the build is proven first, the folder that holds the converted demo or will.
    """
    from bigbird_port.files.memory import return_freed_arrays
    from parity.checks.build import check_build
    from parity.given.golden import read_golden
    from parity.reports.terminal import make_console, print_layers, print_report
    from parity.run.conditions import passes
    from parity.run.run import run_parity

    return_freed_arrays()
    golden = read_golden(options["golden_file"]) if options.get("golden_file") else None
    family, impossible = family_of_folder(out)
    every = tuple(head for head in family.heads if head not in impossible)
    default = (golden.head,) if golden else heads_of_programs(out, options) or every
    chosen = every if "all" in heads else tuple(dict.fromkeys(heads)) or default
    if mesh := options.get("mesh"):
        options = mesh_options(options, chosen)
    run_options = make_options(out, options, golden, family)
    tuple(passes(out, run_options))  # what is wrong with the input is said at once
    build = []
    if demo and proves_build(options):
        if not demo.exists():
            convert_demo(demo)
        build = check_build(demo, run_options)
    result = run_parity(out, chosen, run_options)
    result.checks = build + result.checks
    for head, why in impossible.items():
        result.leave_out(head, f"all of it ({why})")
    if mesh:
        result.environment["mesh"] = mesh_line(result, mesh)
    found = report_of(result, out, options.get("matrix"))
    if mesh and options["with_faults"]:
        found = with_faults(found, out, run_options, click.echo)
    console, layers = make_console(), options.get("layers", False)
    if layers:
        print_layers(console, result)
    print_report(console, found, taps and not layers)
    for line in no_effect(result, options):
        click.echo(line)
    if mesh:
        click.echo(result.environment["mesh"])
    write_reports(found, options | {"json_file": json_file})
    return result.passed and not (options.get("with_faults") and missed(found))


def family_of_folder(out: Path) -> tuple[Any, dict[str, str]]:
    """Return the family of the model in a folder, and its heads that the model cannot have, each with the reason.

    Where there is no folder yet, the demo will be there.
    """
    from bigbird_port.families.registry import default_family
    from bigbird_port.models.folder import read_folder_config

    if not out.exists():
        return default_family(), {}
    config, found = read_folder_config(out, "torch"), {}
    for head in config.family.heads:
        try:
            config.for_head(head)
        except ValueError as error:
            found[head] = str(error)
    return config.family, found


def no_effect(result: Any, options: dict[str, Any]) -> Iterator[str]:
    """Say which of the typed options changed nothing, and why."""
    from parity.measure.tolerances import BOTH, read_table

    if options.get("keep") and not result.kept:
        why = "no tap of a layer failed" if not result.passed else "nothing failed"
        yield f"--keep {options['keep']}: no tensors were kept, because {why}"
    if given := options.get("tolerances"):
        keys = {key for row in result.rows for key in row.tolerance.key.split(BOTH)}
        used = keys & read_table(given).entries.keys()
        if not used:
            yield f"--tolerances {given}: none of its entries is of what was compared"


def make_options(out: Path, options: dict[str, Any], golden: Any, family: Any = None) -> Any:
    """Build the run's Options from those of the command line; family: of the model, None is the default one."""
    from parity.conditions.table import PLAIN, THOROUGH
    from parity.measure.tolerances import read_table, shipped_table
    from parity.run.conditions import DEFAULT_WITNESSES, Options

    inputs = given_inputs(out, options)
    plain = {"lengths", "batches", "adversarial", "dtype", "mesh", "gradients", "decoding", "keep", "seed"}
    if inputs is None and golden is None:  # those bring their own
        plain |= {"length", "batch"}
    device, given = options.get("device") or "cpu", options.get("tolerances")
    conditions: tuple[str, ...] = ()
    if not options.get("no_conditions") and is_plain(options):
        conditions = THOROUGH if options.get("thorough") else PLAIN
    return Options(
        **{name: options[name] for name in plain if name in options},
        inputs=inputs,
        golden=golden,
        overrides={name: options[name] for name in OVERRIDES if options.get(name)},
        witnesses=options.get("against") or DEFAULT_WITNESSES,
        torch_device=options.get("torch_device") or device,
        flax_device=options.get("flax_device") or device,
        local=not options.get("no_local"),
        losses=not options.get("no_losses"),
        called=not options.get("no_calls"),
        conditions=conditions,
        tolerances=shipped_table(family).joined(read_table(given)) if given else None,
    )


def convert_demo(out: Path) -> Any:
    """Convert the checkpoint that is shipped with the package."""
    from bigbird_port.conversion.convert import convert as run_convert

    return run_convert(Path(bigbird_port.__file__).parent / "demo_checkpoint", out)
