"""Reader of a Flax parameter tree that Orbax saved, through Orbax itself; one tensor at a time is held."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from bigbird_port.files.json_object import read_json_object
from bigbird_port.files.reading import is_there
from bigbird_port.formats.dtypes import DTYPES
from bigbird_port.formats.limits import MAX_DEPTH, MAX_TENSOR_BYTES
from bigbird_port.formats.links import file_size
from bigbird_port.formats.runs import check_name, check_shape
from bigbird_port.formats.safetensors.reader import check_count
from bigbird_port.formats.store import PIECE_BYTES, Stored
from bigbird_port.installed import need

_METADATA = "_METADATA"
_STEP_METADATA = "_CHECKPOINT_METADATA"
_one_at_a_time = Lock()  # each call of Orbax runs an event loop of its own


def orbax_items(folder: Path) -> dict[str, Path]:
    """The trees that Orbax wrote into a folder: itself under "", or the items of a step of a CheckpointManager."""
    if is_there(folder / _METADATA):
        return {"": folder}
    if not is_there(folder / _STEP_METADATA) and not folder.name.isdecimal():
        return {}
    return {item.name: item for item in sorted(folder.glob("*/")) if is_there(item / _METADATA)}


def open_orbax(items: Mapping[str, Path]) -> OrbaxFolder | OrbaxItems:
    """Open what orbax_items found; raises ValueError as OrbaxFolder does."""
    return OrbaxFolder(items[""]) if "" in items else OrbaxItems(items)


class OrbaxItems:
    """The items of one step as one Store, under ITEM/NAME."""

    def __init__(self, items: Mapping[str, Path]) -> None:
        self._items = {item: OrbaxFolder(path) for item, path in items.items()}
        self.files = tuple(file for store in self._items.values() for file in store.files)
        self.tensors: Mapping[str, Stored] = {
            check_name(f"{item}/{name}"): stored
            for item, store in self._items.items()
            for name, stored in store.tensors.items()
        }

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the values of one tensor as Store.pieces does."""
        item, _, inner = name.partition("/")
        return self._items[item].pieces(inner)


class OrbaxFolder:
    """One checkpoint as a Store, under slash-separated names.

    Raises ValueError naming the folder and what is wrong with it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()  # Orbax takes absolute paths alone
        self.files = tuple(sorted(path for path in self.folder.rglob("*") if path.is_symlink() or not path.is_dir()))
        for file in self.files:
            file_size(file)
        read_json_object(self.folder / _METADATA)
        self._paths: dict[str, tuple[str, ...]] = {}
        tensors: dict[str, Stored] = {}
        self.tensors: Mapping[str, Stored] = tensors
        try:
            for path, leaf in _leaves(_metadata(self.folder), ()):
                name = check_name("/".join(path))
                if name in tensors:
                    raise ValueError(f"{name} is there twice")
                self._paths[name], tensors[name] = path, _stored(leaf, name)
                check_count(len(tensors), folder)
        except ValueError as error:
            raise ValueError(f"{folder}: not an Orbax checkpoint of parameters, or damaged: {error}") from None
        if not tensors:
            raise ValueError(f"{folder}: it holds no arrays: expected a tree of parameters that Orbax saved")

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the values of one tensor as Store.pieces does; it is read whole."""
        stored = self.tensors[name]
        if stored.dtype is None:
            raise ValueError(f"{self.folder}: {name} is {stored.type_name}: expected a numeric array")
        values = self._restore(name)
        if values.dtype != stored.dtype or values.shape != stored.shape:
            raise ValueError(f"{self.folder}: {name} is {values.dtype} {list(values.shape)}, unlike its metadata")
        flat, size = np.ascontiguousarray(values).reshape(-1), PIECE_BYTES // stored.dtype.itemsize
        for start in range(0, flat.size, size):
            yield flat[start : start + size]

    def _restore(self, name: str) -> np.ndarray:
        import orbax.checkpoint as ocp

        item: Any = 0
        how: Any = ocp.RestoreArgs(restore_type=np.ndarray)
        for key in reversed(self._paths[name]):
            item, how = {key: item}, {key: how}
        try:
            with _one_at_a_time, _quiet(), ocp.PyTreeCheckpointer() as checkpointer:
                arguments = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
                found = checkpointer.restore(self.folder, args=arguments)
            for key in self._paths[name]:
                found = found[key]
        except Exception as error:  # Orbax raises nearly every type for a damaged folder
            raise ValueError(f"{self.folder}: {name} cannot be read: {_first_line(error)}") from None
        return np.asarray(found)


def _metadata(folder: Path) -> Any:
    need(f"{folder}: reading what Orbax wrote", "orbax")
    import orbax.checkpoint as ocp

    try:
        with _one_at_a_time, _quiet(), ocp.PyTreeCheckpointer() as checkpointer:
            found = checkpointer.metadata(folder)
        found = getattr(found, "item_metadata", found)  # older releases return the tree at once
        return getattr(found, "tree", found)
    except Exception as error:  # Orbax raises nearly every type for a damaged folder
        raise ValueError(_first_line(error)) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's warnings: of one item of a step it misses the metadata that lie beside the items."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if len(path) > MAX_DEPTH:
        raise ValueError(f"{'/'.join(path)[:80]} is nested more than {MAX_DEPTH} deep")
    if isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            yield from _leaves(value, (*path, str(i)))
        return
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, value in tree.items():
        if not isinstance(key, str):
            raise ValueError(f"{'/'.join(path)[:80]}: a key in it is a {type(key).__name__}: expected a string")
        yield from _leaves(value, (*path, key))


def _stored(leaf: Any, name: str) -> Stored:
    dtype, shape = getattr(leaf, "dtype", None), getattr(leaf, "shape", None)
    if dtype is None or shape is None:  # of a training state: a number, a text, None
        return Stored(None, (), f"no array but {type(leaf).__name__}")
    sizes = check_shape(list(shape), name)
    type_name = np.dtype(dtype).name
    stored = Stored(DTYPES[type_name], sizes) if type_name in DTYPES else Stored(None, sizes, f"of type {type_name}")
    if stored.nbytes > MAX_TENSOR_BYTES:
        raise ValueError(f"{name} has {stored.nbytes} bytes: expected at most {MAX_TENSOR_BYTES}")
    return stored
