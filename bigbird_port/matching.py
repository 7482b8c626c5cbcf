"""Match the variables of an original checkpoint to the schema: every name gets a fate, or one report says why not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bigbird_port.config import BigBirdConfig
from bigbird_port.heads import HEADS
from bigbird_port.layout import merged_shape, split_shape
from bigbird_port.schema import ALL, SCHEMA, Weight, dims, weights_of

Shapes = Mapping[str, tuple[int, ...]]

# Variables that are not weights: pattern of the whole name, reason.
IGNORED: tuple[tuple[str, str], ...] = (
    (r".+/(AdamWeightDecayOptimizer|Adam|adam_m|adam_v)(_\d+)?", "optimizer slot"),
    (r".+/Adafactor\w*", "optimizer slot"),
    (r"(.+/)?beta[12]_power", "optimizer state"),
    (r"global_step", "training step counter"),
    (r"_CHECKPOINTABLE_OBJECT_GRAPH", "bookkeeping of the saver"),
)


@dataclass(frozen=True)
class Fate:
    """What became of one source name: "converted" to a canonical name, "unused" or "ignored" for a reason."""

    what: str
    detail: str


@dataclass(frozen=True)
class Match:
    """sources: canonical name -> source name. fills: canonical name -> "zeros" or "initialise". fates: by source."""

    sources: dict[str, str]
    fills: dict[str, str]
    fates: dict[str, Fate]


def ignored_reason(name: str) -> str | None:
    """Why a variable is not a weight, or None if it may be one."""
    return next((reason for pattern, reason in IGNORED if re.fullmatch(pattern, name)), None)


def find_scope(names: Iterable[str]) -> str:
    """Return the scope (usually "bert") under which the model's variables stand."""
    tail = "/embeddings/word_embeddings"
    scopes = sorted({name[: -len(tail)] for name in names if name.endswith(tail) and not ignored_reason(name)})
    if len(scopes) != 1:
        found = "none" if not scopes else ", ".join(scopes)
        raise ValueError(f"not a BigBird checkpoint: expected one variable <scope>{tail}, found {found}")
    return scopes[0]


def match_names(shapes: Shapes, config: BigBirdConfig, head: str) -> Match:
    """Match variable names and shapes to the weights of ``head``.

    Raises ValueError with one sorted report of what is missing, extra, misshapen or doubled.
    """
    scope = find_scope(shapes)
    known = _rows_by_original_name(config, scope)
    needed = {row.name: row for row in weights_of(config, head, "torch")}  # the larger of the two frameworks' sets
    sources: dict[str, str] = {}
    fates: dict[str, Fate] = {}
    problems: list[str] = []
    for name in sorted(shapes):
        if reason := ignored_reason(name):
            fates[name] = Fate("ignored", reason)
        elif name not in known:
            problems.append(f"extra: {name} {_text(shapes[name])} is no weight of this configuration")
        else:
            row = known[name]
            problems += _problems(name, shapes[name], row, sources, config)
            sources[row.name] = name
            fates[name] = Fate("converted", row.name) if row.name in needed else Fate("unused", _unused(row, head))
    fills = {name: row.fill_for(config) for name, row in needed.items() if name not in sources}
    for name, fill in fills.items():
        if fill == "required":
            originals = " or ".join(original.replace("{scope}", scope) for original in needed[name].original)
            problems.append(f"missing: {originals} {_text(needed[name].shape(config))}")
    if problems:
        raise ValueError(_report(problems))
    return Match({name: sources[name] for name in needed if name in sources}, dict(fills), fates)


def _rows_by_original_name(config: BigBirdConfig, scope: str) -> dict[str, Weight]:
    rows: dict[str, Weight] = {}
    for row in weights_of(config):
        for original in row.original:
            name = original.replace("{scope}", scope)
            if name in rows:
                raise ValueError(f"schema: {name} means both {rows[name].name} and {row.name}")
            rows[name] = row
    return rows


def _problems(
    name: str, shape: tuple[int, ...], row: Weight, sources: Mapping[str, str], config: BigBirdConfig
) -> Iterator[str]:
    if row.name in sources:
        yield f"doubled: {sources[row.name]} and {name} both mean {row.name}"
    merged, split = merged_shape(row.axes, dims(config)), split_shape(row.axes, dims(config))
    if shape not in (merged, split):
        expected = _text(merged) if merged == split else f"{_text(merged)} or {_text(split)}"
        yield f"misshapen: {name} is {_text(shape)}, the configuration makes it {expected}"


def _unused(row: Weight, head: str) -> str:
    owners = [name for name in HEADS if name in row.heads]
    return f"belongs to {', '.join(owners)}, not to {head}"


def _report(problems: list[str]) -> str:
    lines = "\n".join(f"  {problem}" for problem in sorted(problems))
    return (
        f"the checkpoint's variables do not fit the configuration ({len(problems)} problems):\n{lines}\n"
        "Check that this is a BigBird checkpoint and that its configuration belongs to it (--config FILE)."
    )


def _text(shape: tuple[int, ...]) -> str:
    return str(list(shape))


def head_held(names: Iterable[str], config: BigBirdConfig) -> str:
    """Return the head whose own weights a checkpoint holds: of several, the one with the most."""
    present = set(names)
    known = _rows_by_original_name(config, find_scope(present))
    held = {known[name].name for name in present if name in known}
    best, most = "base", 0
    for head in HEADS:
        own = [row.name for row in weights_of(config, head) if row.heads != ALL]
        if len(own) > most and held.issuperset(own):
            best, most = head, len(own)
    return best


def infer_settings(shapes: Shapes) -> dict[str, Any]:
    """Return the configuration fields that names and shapes of an original checkpoint tell.

    Sizes, number of layers, use_bias and, where kernels are 3-D, the number of attention heads; num_labels and
    classifier_style if the original's classifier is there.
    """
    scope = find_scope(shapes)
    sizes = _axis_sizes(shapes, scope)
    fields = {
        "vocab": "vocab_size",
        "position": "max_position_embeddings",
        "type": "type_vocab_size",
        "hidden": "hidden_size",
        "inner": "intermediate_size",
        "heads": "num_attention_heads",
        "label": "num_labels",
    }
    settings: dict[str, Any] = {field: sizes[axis] for axis, field in fields.items() if axis in sizes}
    layers = [re.match(rf"{re.escape(scope)}/encoder/layer_(\d+)/", name) for name in shapes]
    settings["num_hidden_layers"] = 1 + max((int(layer[1]) for layer in layers if layer), default=-1)
    settings["use_bias"] = f"{scope}/encoder/layer_0/attention/self/query/bias" in shapes
    if "label" in sizes:
        settings["classifier_style"] = "original"
    return settings


def _axis_sizes(shapes: Shapes, scope: str) -> dict[str, int]:
    """Size of each axis of the schema as the variables of layer 0 and of the body show it; the first row decides."""
    sizes: dict[str, int] = {}
    for row in SCHEMA:
        for original in row.original:
            shape = shapes.get(original.replace("{scope}", scope).replace("{i}", "0"))
            axes = row.axes.replace("(", "").replace(")", "").split()
            if shape is not None and len(shape) == len(axes):
                for axis, size in zip(axes, shape, strict=True):
                    sizes.setdefault(axis, size)
    return sizes
