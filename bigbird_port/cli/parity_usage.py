"""Options of ``parity`` that exclude or need each other: what would be passed over in silence is a usage error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import click
from click.core import ParameterSource

_BRINGS = {
    "golden_file": "--golden",
    "inputs_file": "--inputs",
    "text_file": "--text",
    "question": "--question",
}
_SWEEPS = {"lengths": "--lengths", "batches": "--batches", "adversarial": "--adversarial"}
_BATCH = {"batch": "--batch"}
# Option -> those that it leaves without effect.
_PASSED_OVER = {
    "lengths": {"length": "--length"},
    "batches": _BATCH,
    "adversarial": _BATCH | {"batches": "--batches"},
}
# Options that say what is compared, or on what: then nothing else is.
_SAYS = {*_BRINGS, *_SWEEPS, "mesh", "against"}
PROGRAMS = ("onnx", "exported")  # parity.witnesses.witness.EXPORTED, without what that module imports
_OF_PROGRAMS = (1, 3)  # batches, of which neither may be frozen into a program
_ON_TORCH, _ON_FLAX = {"torch", "transformers"}, {"flax", "sharded"}


def given_options() -> set[str]:
    """Return the names of the parameters of the running command that were typed."""
    context = click.get_current_context()
    return {
        name
        for name in context.params
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)
    }


def is_plain(options: Mapping[str, Any]) -> bool:
    """Whether no option says what is compared, or on what inputs, so that all conditions are run."""
    return not any(options.get(name) for name in _SAYS) and options.get("dtype", "float32") == "float32"


def check_usage(options: Mapping[str, Any], given: Collection[str] = ()) -> None:
    """Raise a usage error where options of parity exclude or need each other.

    given: the names of those that were typed, which tells a default from the same value that was asked for.
    """
    _check_inputs(options, given)
    _check_together(options)
    _check_devices(options)


def with_programs(options: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Return the options as programs want them: the reference beside them, two batches unless others were typed."""
    against = options.get("against") or ()
    if not set(against) & set(PROGRAMS):
        return options
    alone = set(against) <= set(PROGRAMS)
    brought = any(options.get(name) for name in (*_BRINGS, "batches", "adversarial")) or "batch" in given
    return options | {
        "against": ("reference", *against) if alone else against,
        "batches": options.get("batches", ()) if brought else _OF_PROGRAMS,
    }


def heads_of_programs(out: Any, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the heads of the programs in ``out`` that are compared; empty where none are."""
    from parity.exports.with_exported import find_program

    programs = [name for name in PROGRAMS if name in (options.get("against") or ())]
    return tuple(dict.fromkeys(find_program(out, name)[1].head for name in programs))


def _check_inputs(options: Mapping[str, Any], given: Collection[str]) -> None:
    brought = [option for name, option in _BRINGS.items() if options.get(name)]
    if len(brought) > 1:
        raise click.UsageError(f"{' and '.join(brought)} exclude each other: each brings the inputs")
    cuts = {} if set(brought) & {"--text", "--question"} else {"length": "--length"}
    made = [option for name, option in (cuts | _SWEEPS).items() if options.get(name)]
    made += ["--batch"] * ("batch" in given)
    if brought and made:
        raise click.UsageError(f"{brought[0]} brings its own inputs: leave out {' and '.join(made)}")
    for name, others in _PASSED_OVER.items():
        typed = {other for other in others if options.get(other) and (other in given or other != "batch")}
        present = [option for other, option in others.items() if other in typed]
        if options.get(name) and present:
            raise click.UsageError(f"{_SWEEPS[name]} and {' and '.join(present)} exclude each other")


def _check_together(options: Mapping[str, Any]) -> None:
    if options.get("thorough") and (options.get("no_conditions") or not is_plain(options)):
        raise click.UsageError(
            "--thorough runs conditions of its own, in float32: leave out what says what is compared"
        )
    if bool(options.get("question")) != bool(options.get("context_file")):
        raise click.UsageError("--question and --context go together")
    if options.get("with_faults") and not (options.get("mesh") or options.get("training")):
        raise click.UsageError("--with-faults injects the faults of a --mesh: give one, or --training")
    if options.get("with_faults") and options.get("matrix"):
        raise click.UsageError("--with-faults makes the detection matrix that --faults would bring: leave out one")
    if options.get("golden_file") and options.get("max_encoder_length"):
        raise click.UsageError("--golden brings its own pattern: leave out --max-encoder-length")


def _check_devices(options: Mapping[str, Any]) -> None:
    default = ("flax", "reference") if options.get("mesh") else ("torch", "flax", "reference")
    against = {*(options.get("against") or default), *(["sharded"] if options.get("mesh") else [])}
    for name, whose in (("torch_device", _ON_TORCH), ("flax_device", _ON_FLAX)):
        if options.get(name) and not against & whose:
            found, wanted = ", ".join(sorted(against)), " or ".join(sorted(whose))
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is the device of {wanted}, but what is compared is {found}")
