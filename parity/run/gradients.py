"""Gradients of a loss, for every weight and every tap, against those of the reference.

Legend: B batch, L length, N heads, D hidden, I inner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Head
from bigbird_port.schema.table import weights_of
from parity.given.inputs import Inputs
from parity.measure.gradient_scale import gradient_scale, steepness
from parity.measure.losses import has_loss, make_labels
from parity.measure.tolerances import Table
from parity.run.compare import Scene
from parity.run.results import Row
from parity.witnesses.witness import FRAMEWORKS, Setting, Taps, Witness

_AT_MOST = 1 << 26  # elements of all taps and attention weights, 512 MiB in float64


def compare_gradients(
    scene: Scene, witnesses: dict[str, Witness], config: BigBirdConfig, inputs: Inputs, seed: int
) -> Iterator[Row]:
    """Yield a row for every weight and every tap of each framework; ``grad.<name>``.

    Gradients of a mesh are compared with those of one device as well. Both errors are relative to the reference's.
    check_gradients refuses what is too large.
    """
    labels, own = make_labels(config, scene.head, inputs, seed), config.family.heads[scene.head]
    reference = _of(witnesses["reference"], inputs, labels)
    scene, terms = replace(scene, steepness=steepness(reference.scores)), reference.weights | reference.taps
    if scene.rounding:
        scene.rounding.at_gradients(labels, terms)
    found = {name: _of(witnesses[name], inputs, labels) for name in FRAMEWORKS if name in witnesses}
    wanted = [(name, "reference") for name in found] + [("sharded", "flax")] * ({"sharded", "flax"} <= found.keys())
    for pair in wanted:
        value, other = found[pair[0]], found.get(pair[1], reference)
        yield from gradient_rows(scene, pair, value.weights, other.weights, terms)
        yield from gradient_rows(scene, pair, _before_scores(value.taps, own), _before_scores(other.taps, own), terms)


def _of(witness: Any, inputs: Inputs, labels: Inputs) -> Any:
    """A framework's Gradients; the reference's have the scores as well."""
    return witness.backward(inputs, labels)


def gradient_rows(scene: Scene, pair: tuple[str, str], found: Taps, other: Taps, terms: Taps) -> Iterator[Row]:
    """Yield rows of weights or taps, whose scales the reference's ``terms`` tell.

    What only one side has is a failure, unless the head does not use the weight."""
    for key in [*other, *(key for key in found if key not in other)]:
        if key not in other and not found[key].any():
            continue  # carried along by torch's class without a part in the loss
        if key not in found or key not in other:
            lacking = pair[0] if key in other else pair[1]
            yield scene.failed(pair, "gradient", f"grad.{key}", f"{lacking} has no such gradient")
            continue
        scale = gradient_scale(key, terms if key in terms else other, scene.family)
        yield scene.row(pair, "gradient", f"grad.{key}", (found[key], other[key]), scale=scale)


def _before_scores(taps: Taps, own: Head) -> Taps:
    """Taps without the scores, whose gradients are the loss's own and say nothing of the model."""
    scores = {tap.name for tap in own.taps if tap.scores}
    return {name: tap for name, tap in taps.items() if name not in scores}


def check_gradients(
    config: BigBirdConfig, head: str, inputs: Inputs, settings: dict[str, Setting], table: Table | None
) -> None:
    """Raise ValueError for gradients that cannot be compared.

    Those of a model or of inputs that are too large, without the reference, or of a dtype without tolerances for them.
    """
    if "reference" not in settings:
        raise ValueError("--gradients compares with the reference: leave it in --against")
    if why := too_large(config, inputs):
        raise ValueError(f"--gradients {why}: choose a shorter --length, a smaller --batch, or a smaller model")
    *batch, L = inputs["input_ids"].shape
    B = math.prod(batch)
    if has_loss(head, config.family):
        scene = Scene(head, "", settings, np.ones((B, L), bool), config.num_hidden_layers, table)
        for name in (name for name in FRAMEWORKS if name in settings):
            for row in weights_of(config, head, "torch"):
                scene.tolerance((name, "reference"), "gradient", f"grad.{row.name}")


def too_large(config: BigBirdConfig, inputs: Inputs) -> str:
    """Say why gradients of so large a model or so many tokens are not computed; empty where they are."""
    *batch, L = inputs["input_ids"].shape
    D, I, N = config.hidden_size, config.intermediate_size, config.num_attention_heads  # noqa: E741 (inner)
    elements = config.num_hidden_layers * math.prod(batch) * L * (6 * D + I + N * L)
    if elements <= _AT_MOST:
        return ""
    return f"keeps every tap and attention weight, {elements:.1e} numbers here, more than {_AT_MOST:.1e}"
