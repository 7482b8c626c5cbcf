"""What ``convert`` calls to make programs: each from its twin, run by its own runtime against the reference."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bigbird_port.conversion.exports import MADE_FROM, Export, ExportName
from bigbird_port.conversion.plan import Plan
from bigbird_port.families.registry import default_family
from parity.exports.proof import prove
from parity.exports.running import ONNX, TENSORFLOW, open_program, require
from parity.exports.shape import Shape, shape_for
from parity.exports.with_exported import ExportedWitness
from parity.witnesses.witness import Setting, Source, load_witness

_WITNESS = {"onnx": "onnx", "stablehlo": "exported", "saved-model": "exported"}
_PACKAGES = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "stablehlo": ("jax", "flax"),
    "saved-model": ("jax", "flax", "tensorflow"),
}
_NEEDS = {
    "onnx": {"torch": "pip install torch", **dict.fromkeys(("onnx", "onnxscript"), ONNX["onnxruntime"]), **ONNX},
    "stablehlo": {"jax": "pip install jax flax", "flax": "pip install jax flax"},
    "saved-model": {"jax": "pip install jax flax", "flax": "pip install jax flax", **TENSORFLOW},
}


class Exporter:
    """Makes and verifies the programs of a conversion."""

    def check(self, plan: Plan) -> list[str]:
        """Return what to say of each program; raises ValueError, with the next step, for what cannot be made."""
        config, dtype = plan.config, plan.settings.dtype
        for name in plan.exports:
            if config.family is not default_family():
                raise ValueError(
                    f"--to {name}: {plan.head} of {config.family.title} is not exported, because an encoder, a decoder "
                    f"and its cache would be programs of their own: leave out {name}"
                )
            if name == "onnx" and dtype == "bfloat16":
                raise ValueError(
                    "--to onnx --dtype bfloat16: onnxruntime does not compute in bfloat16 on the CPU, where programs "
                    "are verified: choose float32 or float16"
                )
            require(f"--to {name}", _NEEDS[name])
        return [f"{name}: {shape_of(plan).told}" for name in plan.exports]

    def write(self, name: ExportName, model: Path, folder: Path, plan: Plan) -> Export:
        """Export the model in the folder ``model`` into ``folder``, run the program, and compare it."""
        shape, dtype, head = shape_of(plan), plan.settings.dtype, plan.head
        source = Source(model / MADE_FROM[name], head)
        twin = load_witness(MADE_FROM[name], source, Setting(dtype))  # type: ignore[arg-type]
        export = Export(
            format=name,
            head=head,
            dtype=dtype,
            length=shape.length,
            longest=shape.longest,
            pattern_length=shape.pattern_length,
            made_with=_versions(name),
            verified={},
            **_write(name, folder, twin, dtype, shape),
        )
        del twin
        reference: Any = load_witness("reference", source, Setting("float64"))
        witness = ExportedWitness(_WITNESS[name], export, reference.config, open_program(folder, export))
        return replace(export, verified=prove(witness, reference, shape))


def shape_of(plan: Plan) -> Shape:
    """How the programs of a plan are called."""
    return shape_for(plan.config, plan.head, plan.settings.length)


def _write(name: ExportName, folder: Path, twin: Any, dtype: str, shape: Shape) -> dict[str, Any]:
    if name == "onnx":
        from parity.exports.to_onnx import write_onnx

        return write_onnx(folder, twin.model, shape)
    from parity.exports.to_stablehlo import write_saved_model, write_stablehlo

    write = write_stablehlo if name == "stablehlo" else write_saved_model
    return write(folder, twin.model, dtype, shape)


def _versions(name: ExportName) -> dict[str, str]:
    found = {}
    for package in _PACKAGES[name]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # such as a build under another name
            continue
    return found
