"""Weights between their canonical form and a framework's names and layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from bigbird_port.families.configuration import Configuration
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.layout import change_layout, merged_shape
from bigbird_port.schema.reading.layers import check_layers
from bigbird_port.schema.table import Framework, Weight, dims, unread_of, weights_of

Arrays = Mapping[str, np.ndarray]


def framework_name(row: Weight, framework: Framework) -> str:
    """The weight's name in a framework."""
    return row.torch if framework == "torch" else row.flax


def framework_axes(row: Weight, framework: Framework) -> str:
    """The weight's layout in a framework."""
    return row.torch_axes if framework == "torch" else row.flax_axes


def framework_shapes(config: Configuration, head: str, framework: Framework) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of a framework's class, under its names."""
    sizes = dims(config)
    return {
        framework_name(row, framework): merged_shape(framework_axes(row, framework), sizes)
        for row in weights_of(config, head, framework)
    }


def to_framework(weights: Arrays, config: Configuration, head: str, framework: Framework) -> dict[str, np.ndarray]:
    """Return canonical ``weights`` under the names and in the layouts of a framework's class (contiguous arrays)."""
    sizes, arrays = dims(config), {}
    for row in weights_of(config, head, framework):
        value = change_layout(weights[row.name], row.axes, framework_axes(row, framework), sizes)
        arrays[framework_name(row, framework)] = np.ascontiguousarray(value)
        if framework == "torch":
            arrays |= dict.fromkeys(row.copies, arrays[row.torch])
    return arrays


def from_framework(
    arrays: Arrays, config: Configuration, head: str, framework: Framework, any_pooler: bool = False
) -> dict[str, np.ndarray]:
    """Return a framework's arrays as canonical weights (views where the layout allows).

    any_pooler: the pooler may be there or not, as classes can be built with or without it (add_pooling_layer).
    Raises ValueError with one sorted report of what is missing, extra, misshapen, or tied but not equal.
    """
    sizes = dims(config)
    numbers = (config.family.styles[framework].layer.search(name) for name in arrays)
    check_layers((int(found["number"]) for found in numbers if found), config.num_hidden_layers)
    rows = {framework_name(row, framework): row for row in weights_of(config, head, framework)}
    if any_pooler:
        pooler = {framework_name(row, framework): row for row in _pooler_rows(config, head, framework)}
        has_pooler = any(name in arrays for name in pooler)
        rows = rows | pooler if has_pooler else {name: row for name, row in rows.items() if name not in pooler}
    ties = {row.tied[0]: name for name, row in rows.items() if row.tied and head in row.tied[1]}
    unread = {framework_name(row, framework): row for row in unread_of(config, head)}
    if framework == "torch":
        ties |= {other: name for name, row in rows.items() for other in (*row.repeats, *row.copies)}
    problems = [f"missing: {name}" for name in rows if name not in arrays]
    for name, array in arrays.items():
        if name in ties:
            if ties[name] in arrays and not np.array_equal(array, arrays[ties[name]]):
                problems.append(f"untied: {name} should hold the values of {ties[name]}, but differs")
        elif name in unread and name not in rows:
            if array.any():
                setting = unread[name].zero_without
                problems.append(f"not zero: {name}, which is not read, because {setting} is {getattr(config, setting)}")
        elif name not in rows:
            problems.append(f"extra: {name} {list(array.shape)}")
        elif array.shape != (expected := merged_shape(framework_axes(rows[name], framework), sizes)):
            problems.append(f"misshapen: {name} is {list(array.shape)}, the configuration makes it {list(expected)}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in sorted(problems))
        raise ValueError(f"these weights are not those of a {head} model of this configuration:\n{lines}")
    return {
        row.name: change_layout(arrays[name], framework_axes(row, framework), row.axes, sizes)
        for name, row in rows.items()
    }


def _pooler_rows(config: Configuration, head: str, framework: Framework) -> list[Weight]:
    """The rows of the base model that some heads do without, as a class of this head would name them."""
    family = config.family
    found: dict[str, Weight] = {}
    for owner in [family.base] if head == family.base else [name for name in family.heads if name != family.base]:
        found |= {row.name: row for row in weights_of(config, owner, framework) if row.name in family.optional}
    return list(found.values())


def complete(
    weights: Arrays, config: Configuration, head: str, framework: Framework, seed: int | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the canonical weights of ``head``, and the names of those initialised from ``seed`` because absent.

    Raises ValueError naming what is absent if ``seed`` is None, what may never be absent, and what has another shape.
    """
    rows = {row.name: row for row in weights_of(config, head, framework)}
    absent = [name for name in rows if name not in weights]
    forbidden = [name for name in absent if seed is None or rows[name].fill != "initialise"]
    if forbidden:
        step = "" if seed is not None else "; init_seed=0 would initialise a head's own weights from a seed"
        raise ValueError(f"no weights for {', '.join(forbidden)}, which the {head} head needs{step}")
    for name, row in rows.items():
        if name in weights and weights[name].shape != row.shape(config):
            raise ValueError(
                f"{name} is {list(weights[name].shape)}, the configuration makes it {list(row.shape(config))}"
            )
    filled = {name: initial_value(rows[name], config, seed or 0) for name in absent}
    return {name: filled[name] if name in filled else weights[name] for name in rows}, absent


def initial_arrays(
    config: Configuration, head: str, framework: Framework, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return initial values of a whole model under a framework's names, and their canonical names."""
    weights = {row.name: initial_value(row, config, seed) for row in weights_of(config, head, framework)}
    return to_framework(weights, config, head, framework), list(weights)


def digest(array: np.ndarray) -> str:
    """sha256 of an array's bytes in C order, little-endian."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()
