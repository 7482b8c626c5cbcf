"""What a conversion can write: for each target its folder, its files, and where each weight goes in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from bigbird_port.conversion.places import Place
from bigbird_port.conversion.training_places import state_places, state_tensors
from bigbird_port.families.configuration import Configuration
from bigbird_port.formats.file_plan import FilePlan, Format, Planned, TwoFormats
from bigbird_port.formats.flax.msgpack_writer import FlaxMsgpackFormat
from bigbird_port.formats.safetensors.neutral import NeutralFormat
from bigbird_port.formats.safetensors.writer import SafetensorsFormat
from bigbird_port.formats.tensorflow.bundle_writer import TensorBundleFormat
from bigbird_port.schema.layout import merged_shape, split_shape
from bigbird_port.schema.table import Weight, dims, weights_of
from bigbird_port.training.state import SLOTS_FILE

if TYPE_CHECKING:
    from bigbird_port.training.carried import Carried

TargetName = Literal["torch", "flax", "tf", "neutral"]
TARGETS: tuple[TargetName, ...] = get_args(TargetName)
FlaxFormat = Literal["msgpack", "orbax"]
STATE_SLOTS = SafetensorsFormat({"format": "bigbird-port training"}, SLOTS_FILE)
TfNames = Literal["current", "bert"]
ORBAX_FOLDER = "orbax"


@dataclass(frozen=True)
class Choices:
    """How targets are written. max_shard_size: bytes; None is one file. tf_names: as today's code or as BERT's."""

    max_shard_size: int | None = None
    flax_format: FlaxFormat = "msgpack"
    tf_names: TfNames = "current"


@dataclass(frozen=True)
class Target:
    """One target of a conversion, planned. places: by canonical name. format: None where a library writes (Orbax).

    slots: names in it of what belongs to a training state. copies: where the same values stand once more.
    """

    name: TargetName
    places: Mapping[str, Place]
    tensors: Mapping[str, Planned]
    format: Format | None
    files: tuple[FilePlan, ...]
    slots: frozenset[str] = frozenset()
    copies: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of its weight files (of Orbax: of the values)."""
        if self.format is None:
            return sum(int(np.prod(tensor.shape)) * tensor.dtype.itemsize for tensor in self.tensors.values())
        return sum(file.size for file in self.files)


def plan_target(
    name: TargetName,
    config: Configuration,
    head: str,
    dtype: np.dtype,
    choices: Choices,
    training: Carried | None = None,
) -> Target:
    """Plan one target for a head's weights and a training state; raises ValueError where it cannot hold them."""
    places = _PLACES[name](config, head, choices)
    copies = _copies(places, config, head) if name == "torch" else {}
    every = [*places.values(), *(place for held in copies.values() for place in held)]
    tensors = {place.name: Planned(dtype, place.shape) for place in every}
    file_format = _FORMATS[name](config, head, choices)
    slots: frozenset[str] = frozenset()
    if training is not None:
        slot_places = state_places(name, places, training, config, choices.tf_names == "bert")
        places = {**places, **slot_places}
        types = {state.name: state.dtype for state in state_tensors(training) if state.name in slot_places}
        tensors |= {place.name: Planned(types[own], place.shape) for own, place in slot_places.items()}
        slots = frozenset(place.name for place in slot_places.values())
        if isinstance(file_format, TensorBundleFormat):
            file_format = replace(file_format, prefix_name=f"model.ckpt-{training.state.global_step}")
        elif file_format is not None:
            file_format = TwoFormats(file_format, STATE_SLOTS, slots)
    files = tuple(file_format.plan(tensors)) if file_format else ()
    return Target(name, places, tensors, file_format, files, slots, copies)


def carried_by(target: str, config: Configuration, head: str) -> dict[str, Weight]:
    """Return the rows of ``head`` that a target has a place for, by canonical name; ``left_out`` has the others."""
    rows = weights_of(config, head, "flax" if target == "flax" else "torch")
    return {row.name: row for row in rows if target != "tf" or row.fill_for(config) != "zeros"}


def left_out(target: str, config: Configuration, head: str) -> dict[str, str]:
    """Return the weights that a conversion to ``head`` reads and a target has no place for, and why not."""
    carried = carried_by(target, config, head)
    reason = "without use_bias the original has none" if target == "tf" else f"its {head} class has no place for it"
    return {row.name: reason for row in weights_of(config, head, "torch") if row.name not in carried}


def _copies(places: Mapping[str, Place], config: Configuration, head: str) -> dict[str, tuple[Place, ...]]:
    rows = {row.name: row for row in weights_of(config, head, "torch") if row.copies}
    return {name: tuple(replace(places[name], name=copy) for copy in row.copies) for name, row in rows.items()}


def _torch_places(config: Configuration, head: str, choices: Choices) -> dict[str, Place]:
    sizes, rows = dims(config), carried_by("torch", config, head)
    return {name: Place(row.torch, row.torch_axes, merged_shape(row.torch_axes, sizes)) for name, row in rows.items()}


def _flax_places(config: Configuration, head: str, choices: Choices) -> dict[str, Place]:
    sizes, rows = dims(config), carried_by("flax", config, head)
    return {name: Place(row.flax, row.flax_axes, merged_shape(row.flax_axes, sizes)) for name, row in rows.items()}


def _neutral_places(config: Configuration, head: str, choices: Choices) -> dict[str, Place]:
    rows = carried_by("neutral", config, head)
    return {name: Place(name, row.axes, row.shape(config)) for name, row in rows.items()}


def _tf_places(config: Configuration, head: str, choices: Choices) -> dict[str, Place]:
    """Names of today's code with 2-D kernels, or BERT's with 3-D attention kernels: both occur in the wild."""
    rows = carried_by("tf", config, head)
    unknown = [name for name, row in rows.items() if not row.original]
    if unknown:
        raise ValueError(
            f"--to tf: the original code has no variables for {', '.join(unknown)} of a {head} model: convert the rest "
            "with --head base, or leave out tf"
        )
    return {name: _tf_place(row, config, choices) for name, row in rows.items()}


def _tf_place(row: Weight, config: Configuration, choices: Choices) -> Place:
    bert = choices.tf_names == "bert"
    name = row.original[-1 if bert else 0].replace("{scope}", config.family.scope(config))
    return Place(name, row.axes, (split_shape if bert else merged_shape)(row.axes, dims(config)))


_PLACES = {"torch": _torch_places, "flax": _flax_places, "tf": _tf_places, "neutral": _neutral_places}


def _flax_format(choices: Choices) -> Format | None:
    return FlaxMsgpackFormat() if choices.flax_format == "msgpack" else None


_FORMATS = {
    "torch": lambda config, head, choices: SafetensorsFormat({"format": "pt"}, max_shard_size=choices.max_shard_size),
    "flax": lambda config, head, choices: _flax_format(choices),
    "tf": lambda config, head, choices: TensorBundleFormat(max_shard_size=choices.max_shard_size),
    "neutral": lambda config, head, choices: NeutralFormat(config, head),
}
