"""The engine of a conversion: every weight is read once and goes, piece by piece, to its place in every target.

Peak memory is a few pieces and, where a target lays a kernel out otherwise, two copies of that kernel.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from bigbird_port.casting import EXACT, Rounding, cast
from bigbird_port.checkpoint.store import PIECE_BYTES
from bigbird_port.content import Content, extremes
from bigbird_port.file_plan import FilePlan, Segment
from bigbird_port.layout import Dims, change_layout, merged_shape, same_order
from bigbird_port.targets import Place, Target

_WAITING_PIECES = 6  # how far reading may run ahead of hashing

Checksums = dict[str, int]


@dataclass(frozen=True)
class Weight:
    """One weight on its way. axes: canonical layout. pieces: its values in that order, flat, in its stored type."""

    name: str
    axes: str
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
        digest.update(data)
        self._room.release()

    def result(self, digest: hashlib._Hash) -> Future[str]:
        """The digest of everything added to it so far."""
        return self._thread.submit(digest.hexdigest)

    def close(self) -> None:
        """Wait for what is still to be hashed."""
        self._thread.shutdown()


def as_bytes(values: np.ndarray) -> np.ndarray:
    """The bytes of a contiguous array, not copied."""
    return values.reshape(-1).view(np.uint8)


def stream(
    weights: Sequence[Weight],
    targets: Sequence[Target],
    folder: Path | None,
    dtype: np.dtype,
    sizes: Dims,
    on: Callable[[str, int], None],
) -> Written:
    """Carry every weight to its place in every target's files under ``folder``/<target> (None writes nothing).

    dtype: in which weights are written. on: called with each weight's name and bytes as it is done.
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
                queue.update(digest, values)
                least, most = extremes(values)
                low, high, rounding = np.minimum(low, least), np.maximum(high, most), rounding.worse(cost)
                for target in targets:
                    _put(weight, values, count, target, files.get(target.name), written, sizes)
                count += values.size
            digests[weight.name] = (float(low), float(high), count, queue.result(digest))
            written.roundings[weight.name] = rounding
            on(weight.name, count * dtype.itemsize)
        written.contents = {
            name: Content(low, high, count, sha256.result()) for name, (low, high, count, sha256) in digests.items()
        }
    return written


def _whole_if_turned(weight: Weight, targets: Sequence[Target], sizes: Dims) -> Iterator[np.ndarray]:
    """The weight's pieces, or all of it as one where a target lays it out otherwise."""
    places = [target.places[weight.name] for target in targets if weight.name in target.places]
    if all(same_order(weight.axes, place.axes) for place in places):
        return weight.pieces()
    pieces = list(weight.pieces())
    return iter([pieces[0] if len(pieces) == 1 else np.concatenate(pieces)])


def _put(
    weight: Weight,
    values: np.ndarray,
    at: int,
    target: Target,
    files: Mapping[str, OpenSlot] | None,
    written: Written,
    sizes: Dims,
) -> None:
    """Write a piece, which begins ``at`` that many values, to its place in one target."""
    place = target.places.get(weight.name)
    if place is None:
        return
    values = _turned(values, weight, place, sizes)
    if target.format is None:
        held = written.held.setdefault(target.name, {})
        held.setdefault(place.name, np.empty(place.shape, values.dtype)).reshape(-1)[at : at + values.size] = values
    checksums = written.crc32c.setdefault(target.name, {})
    data = as_bytes(values)
    checksums[place.name] = google_crc32c.extend(checksums.get(place.name, 0), data.tobytes())
    if files and data.size:
        files[place.name].write(at * values.itemsize, data)


def _turned(values: np.ndarray, weight: Weight, place: Place, sizes: Dims) -> np.ndarray:
    """The values in the order of their place; where that is another, ``values`` are the whole weight."""
    if same_order(weight.axes, place.axes):
        return values
    whole = values.reshape(merged_shape(weight.axes, sizes))
    return np.ascontiguousarray(change_layout(whole, weight.axes, place.axes, sizes)).reshape(-1)


class OpenSlot:
    """Where the bytes of one tensor go: segments of an open file."""

    def __init__(self, descriptor: int, segments: Sequence[Segment]) -> None:
        self.descriptor, self.segments = descriptor, segments

    def write(self, at: int, data: np.ndarray) -> None:
        """Write ``data`` (bytes) from byte ``at`` of the tensor on."""
        begin = 0
        for segment in self.segments:
            end = begin + segment.size
            while begin <= at < end and data.size:
                done = os.pwrite(self.descriptor, data[: end - at], segment.offset + at - begin)
                at, data = at + done, data[done:]
            begin = end


@contextmanager
def open_files(plans: Sequence[FilePlan], folder: Path) -> Iterator[dict[str, OpenSlot]]:
    """Create files with their literal bytes; gives where to write each tensor, by its name in them."""
    slots: dict[str, OpenSlot] = {}
    with ExitStack() as stack:
        for plan in plans:
            descriptor = os.open(folder / plan.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            stack.callback(os.close, descriptor)
            os.truncate(descriptor, plan.size)
            for offset, literal in plan.literals:
                OpenSlot(descriptor, [Segment(offset, len(literal))]).write(0, np.frombuffer(literal, np.uint8))
            slots |= {name: OpenSlot(descriptor, segments) for name, segments in plan.slots.items()}
        yield slots


def read_back(plan: FilePlan, path: Path, crc32c: Mapping[str, int]) -> str:
    """Read a written file again and return its sha256; raises ValueError naming what differs from what was written."""
    digest = hashlib.sha256()
    regions: list[tuple[int, int, str | bytes]] = [(at, len(literal), literal) for at, literal in plan.literals]
    regions += [(part.offset, part.size, name) for name, parts in plan.slots.items() for part in parts]
    found: Checksums = dict.fromkeys(plan.slots, 0)
    with path.open("rb", buffering=0) as file:
        for offset, size, what in sorted(regions, key=lambda region: region[:2]):
            file.seek(offset)
            left = size
            while left:
                piece = file.read(min(left, PIECE_BYTES))
                if not piece:
                    raise ValueError(f"{path}: it ends before what was written to it")
                digest.update(piece)
                if isinstance(what, str):
                    found[what] = google_crc32c.extend(found[what], piece)
                elif piece != what[size - left :][: len(piece)]:
                    raise ValueError(
                        f"{path}: bytes {offset} to {offset + size} read back differ from what was written"
                    )
                left -= len(piece)
    differing = sorted(name for name in found if found[name] != crc32c[name])
    if differing or path.stat().st_size != plan.size:
        what_differs = ", ".join(differing) or f"its size, which should be {plan.size} bytes,"
        raise ValueError(f"{path}: {what_differs} read back differs from what was written")
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
