"""Where the slots of a training state go in each target, and what else of it the original keeps as variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bigbird_port.conversion.places import Place
from bigbird_port.families.configuration import Configuration
from bigbird_port.schema.layout import merged_shape, split_shape
from bigbird_port.schema.slots import groups, slot_axes
from bigbird_port.schema.table import dims

if TYPE_CHECKING:
    from bigbird_port.training.carried import Carried

_COUNTER = "global_step"


@dataclass(frozen=True)
class StateTensor:
    """One array of a training state. name: canonical; axes: empty of a single number."""

    name: str
    axes: str
    count: int
    dtype: np.dtype
    pieces: Callable[[], Iterator[np.ndarray]]


def state_tensors(training: Carried) -> list[StateTensor]:
    """Return everything that is carried: the slots, and the numbers that the original keeps as variables."""
    float32 = np.dtype(np.float32)
    tensors = [StateTensor(s.slot.name, s.slot.axes, s.count, float32, s.pieces) for s in training.slots]
    numbers = {_COUNTER: np.array([training.state.global_step], np.int64)}
    numbers |= {name: np.array([value], np.float32) for name, value in training.state.powers.items()}
    return tensors + [StateTensor(name, "", 1, x.dtype, partial(_one, x)) for name, x in numbers.items()]


def _one(array: np.ndarray) -> Iterator[np.ndarray]:
    yield array


def state_places(
    target: str, places: Mapping[str, Place], training: Carried, config: Configuration, split: bool
) -> dict[str, Place]:
    """Return where each of them goes, by canonical name.

    places: of the weights. split: whether the original's variables are to have an axis for each attention head, and
    the older names. Raises ValueError for factors that have no such form.
    """
    sizes, found = dims(config), {}
    for carried in training.slots:
        slot = carried.slot
        if slot.weight.name not in places:
            continue
        place = places[slot.weight.name]
        if target != "tf":
            there = slot.under(place.axes)
            axes = slot_axes(place.axes, there.kind)
            found[slot.name] = Place(there.name, axes, merged_shape(axes, sizes))
            continue
        if split and training.state.rule.factored and len(place.shape) > len(groups(slot.weight.axes)):
            raise ValueError(
                f"--tf-names bert: Adafactor's factors of {slot.weight.name} are those of a matrix or vector, and "
                "there it has an axis for each attention head: leave --tf-names out, or --optimizer"
            )
        ending = training.state.rule.endings[slot.kind][-1 if split else 0]
        shape = (split_shape if split else merged_shape)(slot.axes, sizes)
        found[slot.name] = Place(f"{place.name}/{ending}", slot.axes, shape)
    if target == "tf":
        numbers = (_COUNTER, *training.state.powers)
        found |= {name: Place(name, "", ()) for name in numbers}
    return found
