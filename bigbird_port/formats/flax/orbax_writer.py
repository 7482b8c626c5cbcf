"""Flax parameters as an Orbax checkpoint: the one target that is not planned and streamed, but written whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bigbird_port.formats.flax.tree import nested
from bigbird_port.installed import need


def write_orbax(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays under slash-separated paths as a nested tree into ``folder``, which must not exist yet.

    ``orbax.checkpoint.StandardCheckpointer().restore(folder)`` gives the tree back as NumPy arrays. All arrays are in
    memory at once. Source: orbax/checkpoint of google/orbax, which writes the files (it chooses some of their names at
    random). Raises ValueError for a folder that exists, an empty array (Orbax has no place for one) or no array.
    """
    if folder.exists():
        raise ValueError(f"{folder}: exists already: choose another name")
    empty = [name for name, array in arrays.items() if not array.size]
    if empty or not arrays:
        raise ValueError(f"{folder}: Orbax stores no empty array: {', '.join(empty) or 'there is nothing to store'}")
    tree = nested(arrays)
    need("--flax-format orbax", "orbax")
    import orbax.checkpoint  # slow to import

    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), tree)
