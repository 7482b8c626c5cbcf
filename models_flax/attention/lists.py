"""Lists of key blocks on the device."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array
from jax import numpy as jnp

from bigbird_port.sparse.pattern import Pattern, fold_repeats
from bigbird_port.sparse.static_lists import static_lists


class KeyLists(NamedTuple):
    """A Pattern on the device; see bigbird_port.sparse.static_lists."""

    key_blocks: Array
    counts: Array
    rows: Array
    global_blocks: Array
    parts: Array
    places: Array


def key_lists(pattern: Pattern | None, rounded: bool = False) -> KeyLists | None:
    """Move a pattern to the device; None (full attention) stays None. rounded: static_lists's."""
    return None if pattern is None else KeyLists(*map(jnp.asarray, static_lists(fold_repeats(pattern), rounded)))
