"""Reader and writer of Flax's msgpack parameter files, without Flax.

A nested map with string keys; an array is extension type 1: a packed (shape, dtype name, bytes) triple. Arrays
over 2**30 bytes are stored in pieces under "__msgpack_chunked_array__" (flax/serialization.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

_ARRAY = 1
_CHUNKED = "__msgpack_chunked_array__"
_CHUNK_BYTES = 1 << 30


def write_flax_msgpack(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays under slash-separated paths as a nested parameter file."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array if array.nbytes <= _CHUNK_BYTES else _chunks(array)
    with path.open("wb") as file:
        file.write(msgpack.packb(tree, default=_pack_array, strict_types=True))


def read_flax_msgpack(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a parameter file by slash-separated path; raises ValueError if it is damaged."""
    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_unpack_array, raw=False, strict_map_key=True)
        if not isinstance(tree, dict):
            raise ValueError(f"expected a map of parameters, found {type(tree).__name__}")
        return dict(_leaves(tree, ""))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"{path}: not a Flax parameter file, or damaged: {error or type(error).__name__}") from None


def _pack_array(value: Any) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"only arrays are written, found {type(value).__name__}")
    return msgpack.ExtType(_ARRAY, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    if code != _ARRAY:
        raise ValueError(f"extension type {code} is not an array")
    shape, dtype, raw = msgpack.unpackb(data, raw=False)
    return np.frombuffer(raw, np.dtype(dtype)).reshape(shape)


def _chunks(array: np.ndarray) -> dict[str, Any]:
    flat, size = array.reshape(-1), _CHUNK_BYTES // array.itemsize
    pieces = {str(i): flat[start : start + size] for i, start in enumerate(range(0, flat.size, size))}
    shape = {str(i): length for i, length in enumerate(array.shape)}
    return {_CHUNKED: True, "shape": shape, "chunks": pieces}


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        if isinstance(value, dict) and _CHUNKED in value:
            pieces = [value["chunks"][str(i)] for i in range(len(value["chunks"]))]
            value = np.concatenate(pieces).reshape([value["shape"][str(i)] for i in range(len(value["shape"]))])
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}/")
        elif isinstance(value, np.ndarray):
            yield f"{prefix}{key}", value
        else:
            raise ValueError(f"{prefix}{key} is a {type(value).__name__}, expected an array")
