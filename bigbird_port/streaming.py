"""The engine of a conversion: every weight is read once and goes, piece by piece, to its place in every target.

Peak memory is a few pieces and, where a target lays a kernel out otherwise, two copies of that kernel.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from bigbird_port.casting import EXACT, Rounding, cast
from bigbird_port.checkpoint.store import PIECE_BYTES
from bigbird_port.content import Content, extremes
from bigbird_port.filling import OpenSlot, open_files
from bigbird_port.layout import Dims, change_layout, contiguous, merged_shape, same_order
from bigbird_port.targets import Place, Target

_WAITING_PIECES = 6  # how far reading may run ahead of hashing

Checksums = dict[str, int]


@dataclass(frozen=True)
class Weight:
    """One weight on its way. axes: canonical layout. pieces: its values in that order, flat, in its stored type."""

    name: str
    axes: str
    count: int
    pieces: Callable[[], Iterator[np.ndarray]]


@dataclass
class Written:
    """What a pass found out. crc32c: by target and by name in that target. held: arrays for targets not streamed."""

    contents: dict[str, Content] = field(default_factory=dict)
    roundings: dict[str, Rounding] = field(default_factory=dict)
    crc32c: dict[str, Checksums] = field(default_factory=dict)
    held: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


class HashQueue:
    """sha256 on a thread of its own, so that hashing and reading overlap; of bounded length."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._room = threading.BoundedSemaphore(_WAITING_PIECES)

    def update(self, digest: hashlib._Hash, data: np.ndarray) -> None:
        """Add an array's bytes to a digest, in the order of the calls."""
        data = as_bytes(data)
        for start in range(0, data.size, PIECE_BYTES):
            self._room.acquire()
            self._thread.submit(self._update, digest, data[start : start + PIECE_BYTES])

    def _update(self, digest: hashlib._Hash, data: np.ndarray) -> None:
        digest.update(data.data)
        self._room.release()

    def result(self, digest: hashlib._Hash) -> Future[str]:
        """The digest of everything added to it so far."""
        return self._thread.submit(digest.hexdigest)

    def close(self) -> None:
        """Wait for what is still to be hashed."""
        self._thread.shutdown()


def as_bytes(values: np.ndarray) -> np.ndarray:
    """The bytes of a contiguous array, not copied; read-only, which the crc32c package insists on."""
    data = values.reshape(-1).view(np.uint8)
    data.flags.writeable = False
    return data


def stream(
    weights: Sequence[Weight],
    targets: Sequence[Target],
    folder: Path | None,
    dtype: np.dtype,
    sizes: Dims,
    on: Callable[[str, int], None],
    checked: bool = True,
) -> Written:
    """Carry every weight to its place in every target's files under ``folder``/<target> (None writes nothing).

    dtype: in which weights are written. on: called with each weight's name and bytes as it is done. checked: whether
    checksums are made; without, ``sha256`` of every weight is empty.
    Raises ValueError where a value is lost, and what reading and writing raise.
    """
    written, digests = Written(), {}
    queue = HashQueue()
    with ExitStack() as stack:
        stack.callback(queue.close)
        files = {
            target.name: stack.enter_context(open_files(target.files, folder / target.name))
            for target in targets
            if folder
        }
        for weight in weights:
            digest, count = hashlib.sha256(), 0
            low, high, rounding = np.inf, -np.inf, EXACT
            for piece in _whole_if_turned(weight, targets, sizes):
                values, cost = cast(piece, dtype, weight.name)
                if checked:
                    queue.update(digest, values)
                least, most = extremes(values)
                low, high, rounding = np.minimum(low, least), np.maximum(high, most), rounding.worse(cost)
                for target in targets:
                    _put(weight, values, count, target, files.get(target.name), written, sizes, checked)
                count += values.size
            digests[weight.name] = (float(low), float(high), count, queue.result(digest))
            written.roundings[weight.name] = rounding
            on(weight.name, count * dtype.itemsize)
        written.contents = {
            name: Content(low, high, count, sha256.result() if checked else "")
            for name, (low, high, count, sha256) in digests.items()
        }
    return written


def _whole_if_turned(weight: Weight, targets: Sequence[Target], sizes: Dims) -> Iterator[np.ndarray]:
    """The weight's pieces, or all of it as one where a target lays it out otherwise."""
    places = [target.places[weight.name] for target in targets if weight.name in target.places]
    if all(same_order(weight.axes, place.axes) for place in places):
        return weight.pieces()
    return iter([_whole(weight)])


def _whole(weight: Weight) -> np.ndarray:
    pieces = weight.pieces()
    first = next(pieces, np.empty(0, np.float32))
    if first.size == weight.count:
        return first
    whole, at = np.empty(weight.count, first.dtype), first.size
    whole[:at] = first
    for piece in pieces:
        whole[at : at + piece.size] = piece
        at += piece.size
    return whole


def _put(
    weight: Weight,
    values: np.ndarray,
    at: int,
    target: Target,
    files: Mapping[str, OpenSlot] | None,
    written: Written,
    sizes: Dims,
    checked: bool,
) -> None:
    """Write a piece, which begins ``at`` that many values, to its place in one target."""
    place = target.places.get(weight.name)
    if place is None:
        return
    values = _turned(values, weight, place, sizes)
    if target.format is None:
        held = written.held.setdefault(target.name, {})
        held.setdefault(place.name, np.empty(place.shape, values.dtype)).reshape(-1)[at : at + values.size] = values
    data = as_bytes(values)
    if checked:
        checksums = written.crc32c.setdefault(target.name, {})
        checksums[place.name] = google_crc32c.extend(checksums.get(place.name, 0), data)
    if files and data.size:
        files[place.name].write(at * values.itemsize, data)


def _turned(values: np.ndarray, weight: Weight, place: Place, sizes: Dims) -> np.ndarray:
    """The values in the order of their place; where that is another, ``values`` are the whole weight."""
    if same_order(weight.axes, place.axes):
        return values
    whole = values.reshape(merged_shape(weight.axes, sizes))
    return contiguous(change_layout(whole, weight.axes, place.axes, sizes)).reshape(-1)
