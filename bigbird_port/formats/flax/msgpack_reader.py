"""Reader of Flax's msgpack parameter files, without Flax.

A nested map with string keys, lists counting as maps from "0", "1", ...; an array is extension type 1: a packed (shape,
dtype name, bytes) triple. Arrays over 2**30 bytes are stored in pieces under "__msgpack_chunked_array__"
(flax/serialization.py). The reader walks through the file, notes where the values lie and skips them. What is no array
(a step, None, a text: a training state holds such) is listed as what it is, without values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bigbird_port.files.reading import open_regular
from bigbird_port.formats.dtypes import DTYPES
from bigbird_port.formats.limits import MAX_DEPTH, MAX_NAME_BYTES, MAX_NODES, MAX_RANK, MAX_TENSORS
from bigbird_port.formats.links import file_size
from bigbird_port.formats.runs import Run, RunStore, check_name, check_shape
from bigbird_port.formats.safetensors.reader import check_count, check_weight_map, read_weight_map
from bigbird_port.formats.store import Stored, read

_ARRAY = 1
_COMPLEX, _SCALAR = 2, 3  # extension types of single numbers
_CHUNKED = "__msgpack_chunked_array__"
_PLAIN = ("integer", "negative integer", "fraction", "None", "false", "true")  # read with their heads

# First byte -> (kind, bytes of the length that follows); github.com/msgpack/msgpack/blob/master/spec.md
_SIZED = {
    **{0xC4 + i: ("bytes", 1 << i) for i in range(3)},
    **{0xC7 + i: ("extension", 1 << i) for i in range(3)},
    **{0xCC + i: ("integer", 1 << i) for i in range(4)},
    **{0xD0 + i: ("negative integer", 1 << i) for i in range(4)},
    **{0xCA + i: ("fraction", 4 << i) for i in range(2)},
    **{0xD9 + i: ("string", 1 << i) for i in range(3)},
    **{0xDC + i: ("list", 2 << i) for i in range(2)},
    **{0xDE + i: ("map", 2 << i) for i in range(2)},
}
# First byte -> (kind, length or value)
_FIXED = {
    **{i: ("integer", i) for i in range(0x80)},
    **{0x80 + i: ("map", i) for i in range(16)},
    **{0x90 + i: ("list", i) for i in range(16)},
    **{0xA0 + i: ("string", i) for i in range(32)},
    **{0xD4 + i: ("extension", 1 << i) for i in range(5)},
    **{0xE0 + i: ("negative integer", i) for i in range(32)},
    0xC0: ("None", 0),
    0xC2: ("false", 0),
    0xC3: ("true", 0),
}


class FlaxMsgpack(RunStore):
    """One parameter file as a Store, under slash-separated names.

    Raises ValueError naming the file and what is wrong with it.
    """

    def __init__(self, path: Path) -> None:
        size = file_size(path)
        try:
            with open_regular(path) as file:
                scan = _Scan(path, file, size)
                scan.read_tree()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path}: not a Flax parameter file, or damaged: {error}") from None
        super().__init__((path,), scan.tensors, scan.runs)


class FlaxMsgpackShards(RunStore):
    """The shards of an index (flax_model.msgpack.index.json), which lie beside it, as one Store.

    Raises ValueError naming the file and what is wrong with it.
    """

    def __init__(self, index: Path) -> None:
        names = read_weight_map(index)
        shards = [FlaxMsgpack(index.parent / name) for name in sorted(set(names.values()))]
        tensors: dict[str, Stored] = {}
        runs: dict[str, tuple[Run, ...]] = {}
        owners: dict[str, str] = {}
        for shard in shards:
            file = shard.files[0].name
            for name, stored in shard.tensors.items():
                if name in owners:
                    raise ValueError(f"{index}: {name} is both in {owners[name]} and in {file}")
                tensors[name], runs[name], owners[name] = stored, shard.runs[name], file
            check_count(len(tensors), index)
        check_weight_map(names, owners, index)
        super().__init__((index, *(shard.files[0] for shard in shards)), tensors, runs)


def read_flax_msgpack(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a parameter file by slash-separated path; raises ValueError if it is damaged."""
    store = FlaxMsgpack(path)
    return {name: read(store, name) for name, stored in store.tensors.items() if stored.dtype is not None}


@dataclass(frozen=True, slots=True)
class _Array:
    stored: Stored
    run: Run


class _Scan:
    """One walk through a file, which fills ``tensors`` and ``runs``."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.at = self.nodes = 0
        self.tensors: dict[str, Stored] = {}
        self.runs: dict[str, tuple[Run, ...]] = {}

    def read_tree(self) -> None:
        """Read the map that the file is."""
        kind, length = self.read_head()
        if kind != "map":
            raise ValueError(f"expected a map of parameters, found a value of kind {kind}")
        self.read_map("", length, 1)
        if self.at != self.size:
            raise ValueError(f"{self.size - self.at} trailing bytes follow the parameters")

    def read_map(self, prefix: str, length: int, depth: int) -> None:
        """Read a map's entries, or the array in pieces that it is."""
        if depth > MAX_DEPTH:
            raise ValueError(f"{prefix[:80]} is nested more than {MAX_DEPTH} deep")
        keys: set[str] = set()
        for _ in range(length):
            key = self.read_key(keys)
            if key == _CHUNKED:
                if keys != {key} or length != 3:
                    raise ValueError(f"{prefix[:80]}: expected shape and chunks alone beside {_CHUNKED}")
                self.read_chunked(prefix)
                return
            self.read_value(check_name(f"{prefix}/{key}" if prefix else key), depth)

    def read_value(self, name: str, depth: int) -> None:
        """Read one entry of a map or list that is ``depth`` deep."""
        kind, size = self.read_head()
        if kind == "map":
            self.read_map(name, size, depth + 1)
        elif kind == "list":
            self.read_list(name, size, depth + 1)
        elif kind == "extension":
            self.read_extension(name, size)
        elif kind in _PLAIN or kind in ("string", "bytes"):
            self.skip(0 if kind in _PLAIN else size)
            self.add(name, Stored(None, (), f"no array but of kind {kind}"), ())
        else:
            raise ValueError(f"{name} is of kind {kind}: expected an array")

    def read_list(self, prefix: str, length: int, depth: int) -> None:
        """Read a list's entries under their numbers."""
        if depth > MAX_DEPTH:
            raise ValueError(f"{prefix[:80]} is nested more than {MAX_DEPTH} deep")
        for i in range(length):
            self.count_entry()
            self.read_value(check_name(f"{prefix}/{i}"), depth)

    def read_extension(self, name: str, size: int) -> None:
        """Read an array, or skip a single number."""
        code = self.take(1)[0]
        if code in (_COMPLEX, _SCALAR):
            self.skip(size)
            self.add(name, Stored(None, (), "a single number"), ())
            return
        array = self.read_array(name, size, code)
        self.add(name, array.stored, (array.run,))

    def read_chunked(self, name: str) -> None:
        """Read what follows the mark of an array in pieces."""
        self.expect("true", name)
        shape: tuple[int, ...] = ()
        chunks: list[_Array] = []
        keys = {_CHUNKED}
        for _ in range(2):
            key = self.read_key(keys)
            if key == "shape":
                shape = self.read_numbered_shape(name)
            elif key == "chunks":
                chunks = [
                    self.read_array(name, self.expect("extension", name), self.take(1)[0]) for _ in self.numbered(name)
                ]
            else:
                raise ValueError(f"{name}: {key[:80]!r} beside {_CHUNKED}")
        dtypes = {chunk.stored.dtype for chunk in chunks}
        count = sum(math.prod(chunk.stored.shape) for chunk in chunks)
        if len(dtypes) != 1:
            raise ValueError(f"{name}: its pieces are of {len(dtypes)} types: expected one")
        if count != math.prod(shape):
            raise ValueError(f"{name}: its pieces hold {count} values, its shape {list(shape)} needs another number")
        self.add(name, Stored(dtypes.pop(), shape), tuple(chunk.run for chunk in chunks))

    def read_numbered_shape(self, name: str) -> tuple[int, ...]:
        """Read a shape stored as a map from "0", "1", ... to sizes."""
        return check_shape([self.expect("integer", name) for _ in self.numbered(name, MAX_RANK)], name)

    def numbered(self, name: str, most: int = MAX_TENSORS) -> Iterator[int]:
        """Read a map's head, then each of its keys, which must be "0", "1", ...; the caller reads the values."""
        length = self.expect("map", name)
        if length > most:
            raise ValueError(f"{name}: it has {length} pieces: expected at most {most}")
        for i in range(length):
            if self.read_key(set()) != str(i):
                raise ValueError(f"{name}: its pieces are not numbered in order")
            yield i

    def read_array(self, name: str, size: int, code: int) -> _Array:
        """Read the triple of an array in an extension of ``size`` bytes and this type, and skip its values."""
        end = self.at + size
        if code != _ARRAY:
            raise ValueError(f"{name}: extension type {code} is not an array")
        if self.expect("list", name) != 3:
            raise ValueError(f"{name}: expected shape, dtype and bytes")
        rank = self.expect("list", name)
        if rank > MAX_RANK:
            raise ValueError(f"{name}: its shape has {rank} sizes: expected at most {MAX_RANK}")
        shape = check_shape([self.expect("integer", name) for _ in range(rank)], name)
        dtype = self.read_text(self.expect("string", name))
        if dtype not in DTYPES:
            raise ValueError(f"{name}: unknown dtype {dtype[:40]!r}")
        stored = Stored(DTYPES[dtype], shape)
        held = self.expect("bytes", name)
        run = Run(self.path, self.at, held)
        if held != stored.nbytes or run.end != end:
            raise ValueError(f"{name}: its {held} bytes are not those of {dtype} {list(shape)}")
        if end > self.size:
            raise ValueError(f"{name}: {self.truncated(end)}")
        self.file.seek(end)
        self.at = end
        return _Array(stored, run)

    def add(self, name: str, stored: Stored, runs: tuple[Run, ...]) -> None:
        """Note one array."""
        if name in self.tensors:
            raise ValueError(f"{name} is there twice")
        if len(self.tensors) >= MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS} arrays")
        self.tensors[name], self.runs[name] = stored, runs

    def read_key(self, keys: set[str]) -> str:
        """Read a map's key and add it to ``keys``."""
        self.count_entry()
        key = self.read_text(self.expect("string", "a key"))
        if key in keys:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        keys.add(key)
        return key

    def count_entry(self) -> None:
        """Count one entry of a map or list; raises ValueError where there are too many."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ValueError(f"its maps have more than {MAX_NODES} entries")

    def expect(self, kind: str, name: str) -> int:
        """Read the head of a value of this kind and return its length, or the value of an integer."""
        found, value = self.read_head()
        if found != kind:
            raise ValueError(f"{name}: expected a value of kind {kind}, found {found}")
        return value

    def read_head(self) -> tuple[str, int]:
        """Read a value's first bytes: its kind, and its length or value."""
        first = self.take(1)[0]
        if first in _SIZED:
            kind, size = _SIZED[first]
            return kind, int.from_bytes(self.take(size), "big")
        return _FIXED.get(first, (f"0x{first:02x}", 0))

    def read_text(self, size: int) -> str:
        if size > MAX_NAME_BYTES:
            raise ValueError(f"a string has {size} bytes: expected at most {MAX_NAME_BYTES}")
        return self.take(size).decode()

    def skip(self, size: int) -> None:
        """Pass over bytes; raises ValueError where the file ends too soon."""
        if self.at + size > self.size:
            raise ValueError(self.truncated(self.at + size))
        self.at += size
        self.file.seek(self.at)

    def take(self, size: int) -> bytes:
        """Read bytes; raises ValueError where the file ends too soon."""
        data = self.file.read(size)
        if len(data) != size:
            raise ValueError(self.truncated(self.at + size))
        self.at += size
        return data

    def truncated(self, end: int) -> str:
        """What is wrong with a file that ends before the byte ``end`` that it needs."""
        return f"truncated: it has {self.size} bytes, and needs {end} at least: fetch it again"
