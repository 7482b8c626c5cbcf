"""The weight schema: what a row says of a weight, and the rows of a family's table for a configuration."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from bigbird_port.schema.layout import merged_shape

if TYPE_CHECKING:
    from bigbird_port.families.configuration import Configuration
    from bigbird_port.families.family import Family

SCHEMA_VERSION = 1  # of names, axes and orientation; docs/schema.md
Framework = Literal["torch", "flax"]
NO_DECAY = ("LayerNorm", "layer_norm", "bias")  # in a variable's name: the original does not decay it
EVERY = frozenset({"*"})  # owners of a row that all heads of its family have; Family.schema names them


@dataclass(frozen=True)
class Weight:
    """One row of the schema; "{i}" in a name stands for the layer, "{scope}" for the original's scope.

    name: canonical name. axes: canonical axes, which are the original's. original: its names in checkpoints,
    any one of which may occur. keras: how its names end in a SavedModel of the original's question answering, "{_i}"
    standing for nothing in layer 0 and for _1, _2, ... behind it, "{other}" for any part. torch, flax: state_dict
    name and parameter path in transformers, under the family's prefix where the base model is a part. torch_axes,
    flax_axes: their layouts. heads: who owns it;
    EVERY: each head of the family. torch_unused_heads: heads whose torch class carries it without
    using it. tied: (torch name, heads) under which the same values appear once more. when: (config field, value)
    pairs without which the weight does not exist.
    fill: what stands in where a checkpoint lacks it: nothing ("required"), seeded initial values
    ("initialise"), or zeros if fill_when holds and nothing otherwise ("zeros").
    init: how initial values are drawn. still: (head, flag, value): a run of this head does not train the weight where
    this flag of the original, or field of the configuration, has that value. idle: no loss depends on it, so that its
    gradient is rounding alone.
    layers: the configuration's field that says in how many layers a row with "{i}" stands.
    repeats, copies: torch names, within the base model, under which a source may hold the same values once more; under
    copies they are written as well. zero_without: a field of ``when``: where a model lacks the weight for it alone, a
    source may hold it, and is to hold zeros.
    Rows of one name have conditions or heads that exclude one another.
    """

    name: str
    axes: str
    original: tuple[str, ...]
    torch: str
    torch_axes: str
    flax: str
    flax_axes: str
    init: Literal["normal", "zeros", "ones"]
    heads: frozenset[str] = EVERY
    torch_unused_heads: frozenset[str] = frozenset()
    tied: tuple[str, frozenset[str]] | None = None
    when: tuple[tuple[str, Any], ...] = ()
    fill: Literal["required", "initialise", "zeros"] = "required"
    fill_when: tuple[tuple[str, Any], ...] = ()
    keras: tuple[str, ...] = ()
    still: tuple[str, str, Any] | None = None
    idle: bool = False
    layers: str = "num_hidden_layers"
    repeats: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    zero_without: str = ""

    @property
    def decays(self) -> bool:
        """Whether the original's weight decay takes it: by its name there, or where it has none the canonical."""
        name = self.original[0] if self.original else self.name
        return not any(part in name for part in NO_DECAY)

    def trains(self, config: Configuration, head: str, flags: Mapping[str, Any]) -> bool:
        """Whether a run of ``head`` under the original's ``flags`` trains the weight.

        Not one that the head carries without using it, nor one that the original has not.
        """
        if head not in self.heads or self.fill_for(config) == "zeros":
            return False
        if self.still is None or self.still[0] != head:
            return True
        _, flag, value = self.still
        return bool(flags.get(flag, getattr(config, flag, None)) != value)

    def owners(self, framework: Framework) -> frozenset[str]:
        """Heads whose class in ``framework`` has this weight."""
        return self.heads | self.torch_unused_heads if framework == "torch" else self.heads

    def exists(self, config: Configuration) -> bool:
        """Whether a model of this configuration has the weight."""
        return _holds(self.when, config)

    def is_unread(self, config: Configuration) -> bool:
        """Whether a source may hold the weight, all zeros, though a model of this configuration lacks it."""
        others = tuple(condition for condition in self.when if condition[0] != self.zero_without)
        return bool(self.zero_without) and not self.exists(config) and _holds(others, config)

    def fill_for(self, config: Configuration) -> Literal["required", "initialise", "zeros"]:
        """What stands in for the weight where a checkpoint of this configuration lacks it."""
        return self.fill if _holds(self.fill_when, config) else "required"

    def shape(self, config: Configuration) -> tuple[int, ...]:
        """Canonical shape."""
        return merged_shape(self.axes, dims(config))

    def in_layer(self, i: int) -> Weight:
        """The row with the layer's number in its names."""
        return _in_layer(self, i)


@functools.cache  # every command asks for all rows many times
def _in_layer(row: Weight, i: int) -> Weight:
    names = {field: getattr(row, field).replace("{i}", str(i)) for field in ("name", "torch", "flax")}
    original = tuple(name.replace("{i}", str(i)) for name in row.original)
    keras = tuple(name.replace("{_i}", f"_{i}" if i else "") for name in row.keras)
    return replace(row, original=original, keras=keras, **names)


def _holds(conditions: tuple[tuple[str, Any], ...], config: Configuration) -> bool:
    return all(getattr(config, field) == value for field, value in conditions)


def dims(config: Configuration) -> dict[str, int]:
    """Size of every axis that the schema names."""
    return {axis: size if isinstance(size, int) else getattr(config, size) for axis, size in config.family.axes.items()}


def weights_of(config: Configuration, head: str | None = None, framework: Framework | None = None) -> Iterator[Weight]:
    """Yield the rows of one head (None: of all), layers numbered.

    With ``framework`` the rows that its class has, torch and flax names prefixed as in that class;
    without, the rows that the head's function uses, names without prefix.
    """
    for row in config.family.schema:
        owners = row.owners(framework) if framework else row.heads
        if row.exists(config) and (head is None or head in owners):
            yield from _numbered(row, config, head if framework else None)


def unread_of(config: Configuration, head: str | None = None) -> Iterator[Weight]:
    """Yield the rows that a source may hold though a model of this configuration lacks them; names as in torch."""
    for row in config.family.schema:
        if row.is_unread(config) and (head is None or head in row.heads):
            yield from _numbered(row, config, head)


def _numbered(row: Weight, config: Configuration, head: str | None) -> Iterator[Weight]:
    """A row in each of its layers, its names prefixed as in the class of ``head``."""
    layers = range(getattr(config, row.layers)) if "{i}" in row.name else (None,)
    for i in layers:
        numbered = row if i is None else row.in_layer(i)
        yield _prefixed(numbered, head, config.family) if head else numbered


def _prefixed(row: Weight, head: str, family: Family) -> Weight:
    """The row with the base model's name before its own, where the base model is a part and the row is in it."""
    if head == family.base or family.base not in row.heads:
        return row
    repeats, copies = (tuple(f"{family.prefix}.{name}" for name in names) for names in (row.repeats, row.copies))
    torch, flax = f"{family.prefix}.{row.torch}", f"{family.prefix}/{row.flax}"
    return replace(row, torch=torch, flax=flax, repeats=repeats, copies=copies)


def schema_records(family: Family, head: str | None = None) -> list[dict[str, Any]]:
    """Return the schema as JSON values, "{i}" standing for the layer; with ``head`` only the rows it owns."""
    records = []
    for row in family.schema:
        if head is None or head in row.owners("torch"):
            record = asdict(row)
            record["heads"] = [name for name in family.heads if name in row.heads]
            record["torch_unused_heads"] = [name for name in family.heads if name in row.torch_unused_heads]
            record["tied"] = None if row.tied is None else {"torch": row.tied[0], "heads": sorted(row.tied[1])}
            records.append(record)
    return records
