"""One source of weights, opened: which file names mean which weights, under which configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.families.configuration import Configuration
from bigbird_port.families.family import Family
from bigbird_port.families.registry import config_from, families, find_head, read_config
from bigbird_port.files.json_object import as_json_object, read_json_object
from bigbird_port.formats.detection.architectures import check_model_type
from bigbird_port.formats.detection.tensor_names import check_tensor_names
from bigbird_port.formats.open_store import Opened, open_store
from bigbird_port.formats.store import read
from bigbird_port.schema.layout import change_layout
from bigbird_port.schema.reading.matching import Match, head_held, infer_settings, match_names, meant
from bigbird_port.schema.reading.nearest import likeliest, nearest, strayed
from bigbird_port.schema.reading.style import StyleName
from bigbird_port.schema.reading.subtree import Subtree, Wanted, find_subtree, whole
from bigbird_port.schema.table import Weight, dims, weights_of

# One of which stands in every description of a model, and in none of a tokenizer or an adapter.
_DESCRIBING = {"model_type", "architectures", "hidden_size", "d_model", "num_hidden_layers"}
_SHOWN = 5


@dataclass(frozen=True)
class Source:
    """An opened source. head: whose model it holds. notes: what was inferred, in sentences.

    subtree: the part of it that holds the weights; None stands for the whole. wanted: what was asked for.
    """

    opened: Opened
    config: Configuration
    head: str
    notes: tuple[str, ...]
    subtree: Subtree | None = None
    wanted: Wanted = field(default_factory=Wanted)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of everything in it, by its own names."""
        return _shapes(self.opened)

    @property
    def part(self) -> dict[str, Any]:
        """What a manifest says of the part that holds the weights: its label, and whether averages were taken."""
        return {"subtree": self.subtree.label if self.subtree else "", "ema": self.wanted.ema}

    def axes(self, row: Weight) -> str:
        """The layout in which it holds a weight."""
        return self.config.family.styles[self.opened.style].axes(row)

    def match(self, head: str, config: Configuration | None = None) -> Match:
        """Match its names to the weights of ``head``; raises ValueError with one report, naming the source."""
        style, shapes = self.opened.style, self.shapes
        subtree = self.subtree or whole(self.config.family, style, shapes)
        try:
            match = match_names(subtree.inner(shapes), config or self.config, head, style, self.head)
            if lost := strayed(subtree, match.fills, self.head):
                raise ValueError(lost)
        except ValueError as error:
            where = f"{self.opened.path}, under {subtree.label}" if subtree.label else str(self.opened.path)
            hint = nearest(subtree.family, shapes, style) if self.subtree and not subtree.anchored else ""
            raise ValueError(f"{where}: {error}{hint}") from None
        return subtree.owned(match)

    def weight(self, name: str, source_name: str) -> np.ndarray:
        """Read one weight in canonical layout (of its stored type); raises ValueError where its data are damaged."""
        row, values = self._rows[name], read(self.opened.store, source_name)
        return change_layout(values, self.axes(row), row.axes, dims(self.config))

    @cached_property
    def _rows(self) -> dict[str, Weight]:
        return {row.name: row for row in weights_of(self.config)}


def open_source(
    path: Path,
    config_file: Path | None = None,
    num_attention_heads: int | None = None,
    head: str | None = None,
    wanted: Wanted | None = None,
) -> Source:
    """Open any source: a TensorFlow checkpoint, a SavedModel, a torch or Flax folder, the neutral form, a weight file.

    config_file: its configuration, where none lies beside it. head: whose model it is, where only the caller knows.
    wanted: which part of it. Raises ValueError naming what is wrong and the next step.
    """
    opened, subtree = open_part(path, config_file, wanted)
    try:
        if opened.style in ("original", "saved-model"):
            source = _from_tensorflow(opened, subtree, num_attention_heads)
        else:
            source = _from_description(opened, config_file, head)
    except ValueError as error:
        hint = "" if subtree.anchored else nearest(subtree.family, subtree.inner(_shapes(opened)), opened.style)
        named = str(error).startswith(str(opened.path))  # such as a file in it
        raise ValueError(f"{error}{hint}" if named else f"{opened.path}: {error}{hint}") from None
    if num_attention_heads not in (None, source.config.num_attention_heads):
        found = f"the configuration says {source.config.num_attention_heads}"
        raise ValueError(_contradiction(num_attention_heads, found))
    return replace(
        source, notes=(*opened.notes, *subtree.notes, *source.notes), subtree=subtree, wanted=wanted or Wanted()
    )


def open_part(path: Path, config_file: Path | None = None, wanted: Wanted | None = None) -> tuple[Opened, Subtree]:
    """Open the weights at a path, and find the part of them that holds the family's; raises ValueError likewise."""
    opened = open_store(path, config_file)
    _check_whose(opened)
    try:
        subtree = find_part(_shapes(opened), opened.style, wanted)
    except ValueError as error:
        raise ValueError(f"{opened.path}: {error}") from None
    return replace(opened, style=subtree.style), subtree


def find_part(shapes: Mapping[str, tuple[int, ...]], style: StyleName, wanted: Wanted | None = None) -> Subtree:
    """Return the part of a source that holds the weights of some family; the whole where no family's are found."""
    found: list[Subtree] = []
    errors: list[ValueError] = []
    for family in families():
        try:
            found.append(find_subtree(family, shapes, style, wanted))
        except ValueError as error:
            errors.append(error)
    anchored = [part for part in found if part.anchored]
    if errors and not anchored:
        raise errors[0]
    if not anchored:
        family = likeliest([part.family for part in found], shapes, style)
        return next(part for part in found if part.family is family)
    return max(anchored, key=lambda part: meant(part.family, part.names, part.style))


def _check_whose(opened: Opened) -> None:
    """Raise ValueError, saying what it is, if configuration or names are those of no model of ours."""
    origin = opened.config_file or opened.path
    try:
        described = read_json_object(opened.config_file) if opened.config_file else {}
        check_model_type(described)
        origin = opened.path
        check_tensor_names(opened.store.tensors, opened.style, str(described.get("model_type", "")))
    except ValueError as error:
        named = str(error).startswith(str(origin))
        raise ValueError(str(error) if named else f"{origin}: {error}") from None


def _shapes(opened: Opened) -> dict[str, tuple[int, ...]]:
    return {name: stored.shape for name, stored in opened.store.tensors.items()}


def _from_description(opened: Opened, config_file: Path | None, head: str | None) -> Source:
    """A torch, Flax or neutral source: configuration and head as its own description says."""
    file = opened.config_file
    if opened.style == "neutral" and not config_file:
        metadata = getattr(opened.store, "metadata", {})
        origin = "the configuration in its metadata"
        values = as_json_object(metadata.get("config", "").encode(), origin)
    elif file:
        origin, values = str(file), read_json_object(file)
    else:
        raise ValueError("no configuration lies beside it: give --config FILE (the model's config.json)")
    if not _DESCRIBING & values.keys():
        raise ValueError(
            f"{origin}: it describes no model: expected hidden_size and the like, found "
            f"{', '.join(sorted(values)[:_SHOWN]) or 'nothing'}: give the model's config.json by --config FILE"
        )
    architectures = values.get("architectures")
    named = isinstance(architectures, list) and len(architectures) == 1 and isinstance(architectures[0], str)
    if not named and head is None:
        raise ValueError(
            f"{origin}: architectures is {architectures!r}, expected one class name such as "
            "['BigBirdForMaskedLM']: it says whose weights these are; or give --head"
        )
    config = config_from(values, origin)
    own_head = head
    notes: tuple[str, ...] = ()
    try:
        own_head = find_head(architectures[0]).name if named and architectures else head
    except ValueError:  # a class of the user's own
        title, heads = config.family.title, ", ".join(config.family.heads)
        assert architectures
        if head is None:
            raise ValueError(
                f"{origin}: architectures names {architectures[0]!r}, which is no class of {title} here: say by --head "
                f"whose weights these are: one of {heads}"
            ) from None
        notes = (f"{origin} names {architectures[0]}, which is no class of {title}: --head says {head}",)
    assert own_head is not None
    left = ", ".join(config.not_carried(values))
    notes += (f"not carried from {origin}, because it says how that file was written: {left}",) if left else ()
    return Source(opened, config, own_head, notes)


def _from_tensorflow(opened: Opened, subtree: Subtree, num_heads: int | None) -> Source:
    """A checkpoint or SavedModel: the configuration from a file, else inferred from the variables."""
    shapes = subtree.inner(_shapes(opened))
    family = subtree.family
    inferred = infer_settings(family, shapes, opened.style, None if opened.config_file else num_heads)
    labels = {name: inferred[name] for name in ("num_labels", "classifier_style") if name in inferred}
    flags = opened.config_file
    if flags:
        _check_scope(flags, family, shapes)
        config = read_config(flags, family)
        _check_told(config, family, inferred, flags)
        config = config.replace(**labels)
        if num_heads not in (None, config.num_attention_heads):
            raise ValueError(_contradiction(num_heads, f"{flags} says {config.num_attention_heads}"))
        notes = [f"configuration from {flags}"]
    else:
        found = inferred.get(str(family.axes["heads"]))
        if num_heads is not None and found != num_heads:
            raise ValueError(_contradiction(num_heads, f"the 3-D kernels have {found}"))
        if found is None:
            raise ValueError(
                "no configuration lies beside the checkpoint, and 2-D kernels do not tell the number of attention "
                "heads: give --num-attention-heads (the released models have hidden_size / 64) or --config FILE"
            )
        config = family.config(**inferred)
        notes = [
            f"configuration inferred from the variables: {_settings(config, inferred)}",
            f"taken by default, as nothing tells: {_settings(config, family.untold)}",
        ]
    return Source(opened, config, head_held(shapes, config, opened.style), tuple(notes))


def _check_scope(flags: Path, family: Family, names: Iterable[str]) -> None:
    """Raise ValueError where the original's flags are those of another kind of model than the variables."""
    kinds = {one.scope(one.config()): one.title for one in families()}
    said = read_json_object(flags).get("scope")
    found = kinds.keys() & {name.partition("/")[0] for name in names}
    if said in kinds and found and said not in found:
        raise ValueError(
            f"{flags} has the flags of a {kinds[said]} model (scope={said}), but the variables are those of a "
            f"{family.title} model ({', '.join(sorted(found))}/...): give the flags that it was trained with "
            f"({family.flags_file} or the like) by --config FILE"
        )


def _check_told(config: Configuration, family: Family, inferred: Mapping[str, Any], file: Path) -> None:
    """Raise ValueError where a configuration is another family's, or contradicts what the variables tell."""
    if config.family is not family:
        raise ValueError(
            f"{file} is the configuration of a {config.family.title} model, but the variables are those of a "
            f"{family.title} model: give the flags that it was trained with by --config FILE"
        )
    wrong = [name for name in family.told if name in inferred and getattr(config, name) != inferred[name]]
    if wrong:
        said, told = _settings(config, wrong), ", ".join(f"{name}={inferred[name]}" for name in wrong)
        raise ValueError(
            f"{file} says {said}, but the variables are those of a {family.title} model with {told}: give the flags "
            f"that it was trained with ({family.flags_file} or the like) by --config FILE"
        )


def _contradiction(given: int | None, found: str) -> str:
    return f"--num-attention-heads is {given}, but {found}: leave it out"


def _settings(config: Configuration, names: Iterable[str]) -> str:
    return ", ".join(f"{name}={getattr(config, name)}" for name in names)
