"""Labels of every kind that a loss takes: those that count, those that are ignored, and those beyond a text's end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.given.inputs import Inputs
from parity.measure.losses import PLACES, make_labels

IGNORED = -100  # a label that does not count
_PROBLEMS = ("regression", "multi_label_classification", "single_label_classification")


@dataclass(frozen=True, eq=False)
class Labelling:
    """Labels of one kind. overrides: fields of the configuration that say how they are meant."""

    name: str
    labels: Inputs
    overrides: Mapping[str, Any] = field(default_factory=dict)


def labellings(config: BigBirdConfig, head: str, inputs: Inputs, seed: int) -> Iterator[Labelling]:
    """Yield every kind of labels of a head with a loss, drawn from a seed.

    As make_labels draws them; with some ignored, where there is more than one; positions before and beyond a text; and
    all kinds of problems, where the loss knows several.
    """
    own, rng = config.family.heads[head], np.random.default_rng([seed, 2])
    drawn = make_labels(config, head, inputs, seed)
    yield Labelling("labels", drawn)
    for name, labels in drawn.items():
        if labels.dtype.kind == "i" and labels.size > 1:
            changed = _beyond(labels, inputs) if own.labels == PLACES else _ignored(labels, rng)
            yield Labelling(f"labels, {name} out of range", drawn | {name: changed})
    if any("problem_type" in term.settings for term in own.losses):
        for problem in _PROBLEMS:
            other = config.replace(problem_type=problem)
            yield Labelling(problem, make_labels(other, head, inputs, seed), {"problem_type": problem})


def _beyond(labels: np.ndarray, inputs: Inputs) -> np.ndarray:
    """The last position is beyond the text, where it is ignored, and the first is before it."""
    found = labels.copy()
    found[-1], found[0] = inputs["input_ids"].shape[-1] + 3, -1
    return found


def _ignored(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About a third is ignored; the first label that counts stays."""
    found = np.where(rng.random(labels.shape) < 1 / 3, IGNORED, labels)
    first = int((labels.ravel() != IGNORED).argmax())
    found.flat[first] = labels.flat[first]
    return found
