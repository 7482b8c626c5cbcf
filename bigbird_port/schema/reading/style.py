"""One way in which a kind of source spells weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bigbird_port.schema.table import Weight

StyleName = Literal["original", "saved-model", "torch", "flax", "neutral"]


@dataclass(frozen=True)
class Style:
    """One way of naming weights.

    names: a row's names, any one of which may occur. axes: its layout. layer: finds a layer's number, the group
    "number", which is absent for layer 0 of a SavedModel; marked: what a template of ``names`` has in its place.
    prefix: of the base model's weights inside a model with a head; sources may leave it out.
    per_head: whether rows of different heads share a name, so that the source's head must be known.
    """

    names: Callable[[Weight], tuple[str, ...]]
    axes: Callable[[Weight], str]
    layer: re.Pattern[str]
    marked: str
    prefix: str = ""
    per_head: bool = False
