"""Match the names in a source to the schema: every name gets a fate, or one report says why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bigbird_port.families.configuration import Configuration
from bigbird_port.families.family import Family
from bigbird_port.schema.layout import merged_shape, split_shape
from bigbird_port.schema.reading.layers import check_layers
from bigbird_port.schema.reading.naming import Meaning, Naming, naming_of
from bigbird_port.schema.reading.style import StyleName
from bigbird_port.schema.reading.training_state import ignored_reason, state_reason
from bigbird_port.schema.table import Weight, dims, unread_of, weights_of

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Fate:
    """What became of one source name: "converted" to a canonical name, "alias" of one, "unused" or "ignored"."""

    what: str
    detail: str


@dataclass(frozen=True)
class Match:
    """What a source's names mean for one head.

    sources: canonical name -> source name. fills: canonical name -> "zeros" or "initialise". fates: by source name.
    aliases: source name that must repeat the values of another -> that other. unused: canonical name -> source name
    of weights that the source holds for other heads. zeros: source names of what the model does not read, and which is
    to hold zeros.
    """

    sources: dict[str, str]
    fills: dict[str, str]
    fates: dict[str, Fate]
    aliases: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    zeros: tuple[str, ...] = ()


def _weights(family: Family, names: Iterable[str]) -> list[str]:
    return [name for name in names if not ignored_reason(family, name)]


def match_names(
    shapes: Shapes, config: Configuration, head: str, style: StyleName = "original", source_head: str | None = None
) -> Match:
    """Match names and shapes of a source to the weights of ``head``.

    source_head: whose model the source is, which styles torch and flax need to be told.
    Raises ValueError with one sorted report of what is missing, extra, misshapen or doubled.
    """
    family = config.family
    naming = naming_of(family, style, _weights(family, shapes), source_head, config)
    meanings = (naming.meaning(name) for name in _weights(family, shapes))
    check_layers((meaning.layer for meaning in meanings if meaning), config.num_hidden_layers)
    known = {row.name: row for row in weights_of(config)}
    needed = {row.name: row for row in weights_of(config, head, "torch")}  # the larger of the two frameworks' sets
    unread = {row.name: row for row in unread_of(config)}
    match = Match({}, {}, {})
    zeros: list[str] = []
    held: dict[str, str] = {}
    problems: list[str] = []
    for name in sorted(shapes):
        if reason := ignored_reason(family, name):
            match.fates[name] = Fate("ignored", reason)
            continue
        meaning = naming.meaning(name)
        if meaning is None and (reason := state_reason(name, shapes, lambda other: naming.meaning(other) is not None)):
            match.fates[name] = Fate("ignored", reason)
            continue
        if meaning is not None and meaning.name in unread:
            row = unread[meaning.name]
            problems += _problems(name, shapes[name], meaning, row, {}, naming, config)
            condition = f"{row.zero_without} is {getattr(config, row.zero_without)}"
            match.fates[name] = Fate("ignored", f"not read, because {condition}")
            zeros.append(name)
            continue
        if meaning is None or meaning.name not in known:
            problems.append(f"extra: {name} {_text(shapes[name])} is no weight of this configuration")
            continue
        row = known[meaning.name]
        problems += _problems(name, shapes[name], meaning, row, held, naming, config)
        if meaning.tied:
            match.fates[name] = Fate("alias", row.name)
            match.aliases[name] = row.name
            continue
        held[row.name] = name
        match.fates[name] = (
            Fate("converted", row.name) if row.name in needed else Fate("unused", _unused(row, head, family))
        )
    match.fills.update({name: row.fill_for(config) for name, row in needed.items() if name not in held})
    for name, fill in match.fills.items():
        if fill == "required":
            problems.append(f"missing: {naming.spelled(needed[name])} {_text(needed[name].shape(config))}")
    problems += [
        f"missing: {naming.spelled(known[row])}, whose values {name} repeats"
        for name, row in match.aliases.items()
        if row not in held
    ]
    if problems:
        raise ValueError(_report(problems, family))
    match.aliases.update({name: held[row] for name, row in match.aliases.items()})
    match.sources.update({name: held[name] for name in needed if name in held})
    match.unused.update({name: source for name, source in held.items() if name not in needed})
    return replace(match, zeros=tuple(zeros))


def _problems(
    name: str,
    shape: tuple[int, ...],
    meaning: Meaning,
    row: Weight,
    held: Mapping[str, str],
    naming: Naming,
    config: Configuration,
) -> Iterator[str]:
    if row.name in held and not meaning.tied:
        yield f"doubled: {held[row.name]} and {name} both mean {row.name}"
    axes = naming.style.axes(row)
    merged, split = merged_shape(axes, dims(config)), split_shape(axes, dims(config))
    if shape not in (merged, split):
        expected = _text(merged) if merged == split else f"{_text(merged)} or {_text(split)}"
        yield f"misshapen: {name} is {_text(shape)}, the configuration makes it {expected}"


def _unused(row: Weight, head: str, family: Family) -> str:
    owners = [name for name in family.heads if name in row.heads]
    return f"belongs to {', '.join(owners)}, not to {head}"


def _report(problems: list[str], family: Family) -> str:
    lines = "\n".join(f"  {problem}" for problem in sorted(problems))
    advice = f"Check that this is a {family.title} checkpoint and that its configuration belongs to it (--config FILE)."
    if all(problem.startswith("extra: ") for problem in problems):
        advice = (
            "All other weights fit. If these belong to another head, its class is what architectures in config.json "
            "should name; if to a module of your own, save the model without it."
        )
    return f"the checkpoint's variables do not fit the configuration ({len(problems)} problems):\n{lines}\n{advice}"


def _text(shape: tuple[int, ...]) -> str:
    return str(list(shape))


def head_held(names: Iterable[str], config: Configuration, style: StyleName = "original") -> str:
    """Return the head whose own weights a source holds: of several, the one with the most."""
    family = config.family
    present = _weights(family, names)
    naming = naming_of(family, style, present, config=config)
    held = {meaning.name for name in present if (meaning := naming.meaning(name))}
    best, most = family.bare, 0
    not_shared = [row for row in weights_of(config) if row.heads != frozenset(family.heads)]
    for head in dict.fromkeys((family.bare, *family.heads)):
        own = [row.name for row in not_shared if head in row.heads]
        if len(own) > most and held.issuperset(own):
            best, most = head, len(own)
    return best


def infer_settings(
    family: Family, shapes: Shapes, style: StyleName = "original", num_heads: int | None = None
) -> dict[str, Any]:
    """Return the configuration fields that names and shapes of a source tell: sizes, number of layers and others.

    num_heads: how many attention heads there are, where the shapes do not tell.
    """
    names = _weights(family, shapes)
    naming = naming_of(family, style, names)
    meanings = {name: meaning for name in names if (meaning := naming.meaning(name))}
    layers = [meaning.layer for meaning in meanings.values() if meaning.layer is not None]
    held = {meaning.name for meaning in meanings.values()}
    sure = (meaning.row for meaning in meanings.values() if meaning.row.name not in naming.unsure)
    told = {field: value for row in sure for field, value in row.when}
    sizes = _axis_sizes(shapes, meanings, naming)
    if num_heads is not None:
        sizes.setdefault("heads", num_heads)
    return family.infer(sizes, 1 + max(layers, default=-1), held, told)


def meant(family: Family, names: Iterable[str], style: StyleName) -> int:
    """How many names of a source mean a weight of this family; 0 where it is no source of it."""
    listed = _weights(family, names)
    try:
        naming = naming_of(family, style, listed)
    except ValueError:
        return 0
    return sum(naming.meaning(name) is not None for name in listed)


def _axis_sizes(shapes: Shapes, meanings: Mapping[str, Meaning], naming: Naming) -> dict[str, int]:
    """Size of each axis of the schema as the weights of layer 0 and of the body show it; a vote of one row decides."""
    sizes: dict[str, int] = {}
    for name, meaning in meanings.items():
        axes = naming.style.axes(meaning.row).replace("(", "").replace(")", "").split()
        if meaning.layer in (None, 0) and len(shapes[name]) == len(axes):
            for axis, size in zip(axes, shapes[name], strict=True):
                sizes.setdefault(axis, size)
    return sizes
