"""Which stretch of a model a tap or a gradient belongs to, for what is shown layer by layer."""

from __future__ import annotations

import re

from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family

Stage = int | str  # index of a layer, or EMBEDDINGS, or HEAD
EMBEDDINGS, HEAD = "embeddings", "head"
_NUMBER = re.compile(r"\.(\d+)(?:\.|$)")  # of a layer, in the name of a tap or of a weight


def stage_of(tap: str, family: Family | None = None) -> Stage:
    """Return the layer's index in the name of a tap or gradient, or EMBEDDINGS, or HEAD for all that comes after.

    family: whose tap it is; None: of the default one.
    """
    family, name = family or default_family(), tap.removeprefix("grad.")
    place, number = family.place(name), _NUMBER.search(name)
    if number:
        return int(number[1])
    first = family.stages[0].taps
    is_first = place.tap in first if place else any(name.startswith(f"{one.module}.") for one in first)
    return EMBEDDINGS if is_first else HEAD
