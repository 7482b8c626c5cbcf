"""Options of a run, and the passes that they ask for: each a Condition and its inputs.

Legend: B batch, L length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigbird_port.devices.partition import check_sizes
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.registry import default_family
from bigbird_port.models.folder import read_folder_config
from parity.checks.judged import check_judged
from parity.given.adversarial import WORD_FACTORS, adversarial_inputs
from parity.given.golden import GoldenCase
from parity.given.inputs import DEFAULT_BATCH, Inputs, check_ids, default_length, make_inputs
from parity.measure.derived import check_judged_dtype
from parity.measure.tolerances import Table
from parity.run.results import Condition
from parity.witnesses.devices import flax_device, may_lack_cpu, split_name, torch_device
from parity.witnesses.witness import EXPORTED, FRAMEWORKS, MODULES, Dtype, Setting

DEFAULT_WITNESSES = ("torch", "flax", "reference")


@dataclass(frozen=True)
class Options:
    """What to run, and on what.

    witnesses: names of parity.witnesses.witness.MODULES; a golden case adds itself. length, batch: of seeded inputs
    (None: the defaults); lengths, batches: several of them, each length with the attention pattern that the original
    has when it is configured for it. inputs: given ones. golden: a case, which brings its own. adversarial: inputs that
    are hard on an implementation. mesh: sizes of the axes of a mesh, on which Flax runs once more, as the witness
    "sharded". overrides: fields of the configuration. local: feed every layer of every framework the reference's input
    as well. called: call every framework's whole model as well. keep: a folder for the tensors of the first failing
    layer. conditions: names of parity.conditions.table.CONDITIONS, which run after the passes. tolerances: None takes
    the table that is shipped.
    """

    length: int | None = None
    batch: int = DEFAULT_BATCH
    lengths: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    seed: int = 0
    inputs: Inputs | None = None
    golden: GoldenCase | None = None
    mesh: Mapping[str, int] | None = None
    adversarial: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    witnesses: tuple[str, ...] = DEFAULT_WITNESSES
    dtype: Dtype = "float32"
    torch_device: str = "cpu"
    flax_device: str = "cpu"
    local: bool = True
    losses: bool = True
    called: bool = True
    gradients: bool = False
    decoding: bool = False
    keep: Path | None = None
    conditions: tuple[str, ...] = ()
    tolerances: Table | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The witnesses in order of trust; raises ValueError for unknown ones, or fewer than two."""
        wanted = {*self.witnesses, *(("golden",) if self.golden else ()), *(("sharded",) if self.mesh else ())}
        if unknown := sorted(wanted - set(MODULES)):
            raise ValueError(f"unknown witness {', '.join(unknown)}: expected some of {', '.join(MODULES)}")
        if "golden" in wanted and not self.golden:
            raise ValueError("the witness golden needs a case of the original: give one with --golden FILE")
        if "sharded" in wanted and not self.mesh:
            raise ValueError("the witness sharded needs a mesh: give one with --mesh data=2,model=2,sequence=2")
        if len(wanted) < 2 or not wanted & {*FRAMEWORKS, *EXPORTED, "transformers"}:
            raise ValueError(
                f"nothing to compare: found {', '.join(sorted(wanted)) or 'no witness'}; choose two or more of "
                f"{', '.join(MODULES)}, among them torch, flax, transformers, onnx or exported"
            )
        return tuple(name for name in MODULES if name in wanted)

    @property
    def settings(self) -> dict[str, Setting]:
        """How each witness runs, "auto" resolved; truths have a dtype and device of their own.

        Raises ValueError for a device that is not there, or that has no such dtype.
        """
        wanted = {"torch": self.torch_device, "transformers": self.torch_device}
        wanted |= dict.fromkeys(("flax", "sharded"), self.flax_device) | dict.fromkeys(EXPORTED, "cpu")
        meshes = {"sharded": tuple((self.mesh or {}).items())}
        devices = {name: _device(name, wanted[name]) for name in self.names if name in wanted}
        for device in devices.values():
            check_judged_dtype(self.dtype, device, self.tolerances)
        return {
            name: Setting(self.dtype, devices[name], meshes.get(name, ()))
            if name in devices
            else Setting("float64", "cpu")
            for name in self.names
        }


def check_options(options: Options) -> None:
    """Raise ValueError for options of which one would be passed over because of another."""
    brought = [name for name in ("golden", "inputs") if getattr(options, name) is not None]
    made = [name for name in ("length", "lengths", "batches", "adversarial") if getattr(options, name)]
    made += ["batch"] * (options.batch != DEFAULT_BATCH)
    if len(brought) > 1:
        raise ValueError(f"{' and '.join(brought)} exclude each other: each brings the inputs")
    if brought and made:
        raise ValueError(f"{brought[0]} brings its own inputs: leave out {' and '.join(made)}")
    for one, others in (("batches", {"batch"}), ("adversarial", {"batch", "batches"})):
        if one in made and (passed_over := sorted(others & set(made))):
            raise ValueError(f"{one} says what is run: leave out {' and '.join(passed_over)}")
    if options.golden and "max_encoder_length" in options.overrides:
        raise ValueError("golden brings its own pattern: leave out max_encoder_length")


def _device(witness: str, wanted: str) -> str:
    """The name of the device that a framework will run on: cpu, cuda or tpu, with its number if one was given."""
    if wanted == "cpu" and (witness not in ("flax", "sharded") or not may_lack_cpu()):
        return wanted
    if witness in ("flax", "sharded"):
        platform = str(flax_device(wanted).platform)
        kind = {"gpu": "cuda"}.get(platform, platform)
    else:
        kind = str(torch_device(wanted).type)
    number = None if wanted == "auto" else split_name(wanted)[1]
    if witness == "sharded" and number is not None:
        raise ValueError(f"--mesh takes all devices of a kind: give {kind}, not {wanted}")
    return kind if number is None else f"{kind}:{number}"


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass: its condition, its inputs [B, L], the configuration, and what its word embeddings are multiplied by."""

    condition: Condition
    inputs: Inputs
    config: BigBirdConfig
    word_factor: float = 1.0

    @property
    def pattern_length(self) -> int:
        """Tokens of the whole pattern, whatever the texts' length."""
        return self.config.max_encoder_length or self.condition.length


def passes(out: Path, options: Options) -> Iterator[Pass]:
    """Yield the passes that the options ask for; raises ValueError for inputs that do not fit the model."""
    base, settings = read_folder_config(out, "torch"), options.settings
    check_judged(base.family, out)
    for name, overrides, inputs in _inputs(base, options):
        config = base.replace(**overrides)
        if unknown := sorted(set(inputs) - set(base.family.inputs)):
            raise ValueError(
                f"{', '.join(unknown)}: no input of a {base.family.title} model, which takes "
                f"{', '.join(base.family.inputs)}: leave it out"
            )
        check_ids(inputs, config)
        B, L = inputs["input_ids"].shape
        if options.mesh:
            if base.family is not default_family():
                raise ValueError(f"--mesh splits {default_family().title} models alone, and {out} holds another")
            check_sizes(config, options.mesh, B)
        condition = Condition(
            name=f"{B}x{L}{name and f' {name}'}",
            batch=B,
            length=L,
            inputs=_describe(inputs, config.pad_token_id, options, name),
            dtype=options.dtype,
            torch_device=settings["torch"].device if "torch" in settings else "",
            flax_device=settings["flax"].device if "flax" in settings else "",
            overrides=overrides,
        )
        yield Pass(condition, inputs, config, WORD_FACTORS.get(name, 1.0))


def _inputs(base: BigBirdConfig, options: Options) -> Iterator[tuple[str, dict[str, Any], Inputs]]:
    """Name, overrides and inputs of each pass."""
    overrides = dict(options.overrides)
    if options.golden:
        yield "", overrides | {"max_encoder_length": options.golden.max_encoder_length}, options.golden.inputs
        return
    if options.inputs:
        yield "", overrides, options.inputs
        return
    config = base.replace(**overrides)
    for length in options.lengths or (options.length or default_length(config),):
        own = overrides
        if options.lengths and "max_encoder_length" not in overrides:
            own = overrides | {"max_encoder_length": length}
        if options.adversarial:
            for name, inputs in adversarial_inputs(base.replace(**own), length, options.seed).items():
                yield name, own, inputs
            continue
        for batch in options.batches or (options.batch,):
            yield "", own, make_inputs(base.replace(**own), batch, length, options.seed)


def _describe(inputs: Inputs, pad: int, options: Options, name: str) -> str:
    ids = inputs["input_ids"]
    origin = "golden case" if options.golden else "given" if options.inputs else f"seed {options.seed}"
    if name in WORD_FACTORS:
        name += f": word embeddings {WORD_FACTORS[name]:g} times as large"
    real_BL = inputs.get("attention_mask", ids != pad) != 0
    tokens = ", ".join(str(int(n)) for n in real_BL.reshape(len(ids), -1).sum(axis=1)) if real_BL.ndim == 2 else "?"
    return f"{ids.shape[0]} x {ids.shape[1]} tokens ({name or origin}; without padding {tokens})"
