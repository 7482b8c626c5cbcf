"""The engine of a conversion: every weight is read once and goes, piece by piece, to its place in every target.

Several threads carry weights at once, because reading, hashing and writing leave Python's lock alone. Peak memory
is, for each thread, a few pieces and, where a target lays a kernel out otherwise, two copies of that kernel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np

from bigbird_port.conversion.places import Place
from bigbird_port.conversion.targets import Target, TargetName
from bigbird_port.conversion.values.content import Content, extremes
from bigbird_port.files.casting import EXACT, Rounding, cast
from bigbird_port.formats.filling import OpenSlot, as_bytes, open_files
from bigbird_port.schema.layout import Dims, change_layout, contiguous, merged_shape, same_order

Checksums = dict[str, int]


@dataclass(frozen=True)
class Weight:
    """One weight on its way. axes: canonical layout. pieces: its values in that order, flat, in its stored type.

    state: it is no weight but a training state's, and keeps its type.
    """

    name: str
    axes: str
    count: int
    pieces: Callable[[], Iterator[np.ndarray]]
    state: np.dtype | None = None


@dataclass
class Written:
    """What a pass found out. crc32c: by target and by name in that target. held: arrays for targets not streamed.

    contents: of weights; state: of a training state.
    """

    contents: dict[str, Content] = field(default_factory=dict)
    state: dict[str, Content] = field(default_factory=dict)
    roundings: dict[str, Rounding] = field(default_factory=dict)
    crc32c: dict[str, Checksums] = field(default_factory=dict)
    held: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outlet:
    """Where one weight goes in one target. slot: in its file; held: the array to fill instead; both None in a dry run.

    turned: whether it lies there in another order than the canonical.
    """

    target: str
    place: Place
    turned: bool
    slot: OpenSlot | None
    held: np.ndarray | None


@dataclass(frozen=True)
class Carried:
    """What was found out on the way of one weight. crc32c: for each outlet."""

    content: Content
    rounding: Rounding
    crc32c: list[int]


def stream(
    weights: Sequence[Weight],
    targets: Sequence[Target],
    folder: Path | None,
    dtype: np.dtype,
    sizes: Dims,
    on: Callable[[str, int], None],
    threads: Executor,
    checked: bool = True,
) -> Written:
    """Carry every weight to its place in every target's files under ``folder``/<target> (None writes nothing).

    dtype: in which weights are written. on: called with each weight's name and bytes as it is done. threads: those that
    carry, each one weight at a time. checked: whether checksums are made; without, ``sha256`` of every weight is empty.
    Raises ValueError where a value is lost, and what reading and writing raise.
    """
    written = Written(crc32c={target.name: {} for target in targets})
    with ExitStack() as stack:
        files = {
            target.name: stack.enter_context(open_files(target.files, folder / target.name))
            for target in targets
            if folder
        }
        outlets = [_outlets(weight, targets, files, dtype, written) for weight in weights]
        carry = partial(_carry, dtype=dtype, sizes=sizes, checked=checked)
        carried = [threads.submit(carry, weight, ways) for weight, ways in zip(weights, outlets, strict=True)]
        stack.callback(_abandon, carried)  # before the files are closed
        for weight, ways, future in zip(weights, outlets, carried, strict=True):
            found = future.result()
            if weight.state is None:
                written.contents[weight.name], written.roundings[weight.name] = found.content, found.rounding
            else:
                written.state[weight.name] = found.content
            for outlet, crc32c in zip(ways, found.crc32c, strict=True):
                written.crc32c[outlet.target][outlet.place.name] = crc32c
            on(weight.name, found.content.count * (weight.state or dtype).itemsize)
    return written


def _abandon(carried: Sequence[Future[Carried]]) -> None:
    """Begin nothing more, and wait for what is under way."""
    for future in carried:
        future.cancel()
    wait(carried)


def _outlets(
    weight: Weight,
    targets: Sequence[Target],
    files: Mapping[TargetName, Mapping[str, OpenSlot]],
    dtype: np.dtype,
    written: Written,
) -> list[Outlet]:
    """Where a weight goes; makes the arrays of targets that are not streamed."""
    outlets = []
    goes = [
        (target, place)
        for target in targets
        if weight.name in target.places
        for place in (target.places[weight.name], *target.copies.get(weight.name, ()))
    ]
    for target, place in goes:
        held = None
        if target.format is None:
            held = written.held.setdefault(target.name, {})[place.name] = np.empty(place.shape, weight.state or dtype)
        slot = files[target.name][place.name] if target.name in files and held is None else None
        outlets.append(Outlet(target.name, place, not same_order(weight.axes, place.axes), slot, held))
    return outlets


def _carry(weight: Weight, outlets: Sequence[Outlet], dtype: np.dtype, sizes: Dims, checked: bool) -> Carried:
    """Read one weight and write it to all its outlets."""
    digest, crc32c = hashlib.sha256(), [0] * len(outlets)
    low, high, rounding, count = np.inf, -np.inf, EXACT, 0
    whole = any(outlet.turned for outlet in outlets)
    for piece in iter([_whole(weight)]) if whole else weight.pieces():
        values, cost = cast(piece, weight.state or dtype, weight.name)
        if checked:
            digest.update(as_bytes(values).data)
        least, most = extremes(values)
        low, high, rounding = np.minimum(low, least), np.maximum(high, most), rounding.worse(cost)
        for i, outlet in enumerate(outlets):
            data = _put(weight, values, count, outlet, sizes)
            if checked:
                crc32c[i] = google_crc32c.extend(crc32c[i], data)
        count += values.size
    content = Content(float(low), float(high), count, digest.hexdigest() if checked else "")
    return Carried(content, rounding, crc32c)


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


def _put(weight: Weight, values: np.ndarray, at: int, outlet: Outlet, sizes: Dims) -> np.ndarray:
    """Write a piece, which begins ``at`` that many values, to one outlet; returns its bytes as they lie there."""
    if outlet.turned:  # then ``values`` are the whole weight
        whole = values.reshape(merged_shape(weight.axes, sizes))
        values = contiguous(change_layout(whole, weight.axes, outlet.place.axes, sizes)).reshape(-1)
    if outlet.held is not None:
        outlet.held.reshape(-1)[at : at + values.size] = values
    data = as_bytes(values)
    if outlet.slot is not None and data.size:
        outlet.slot.write(at * values.itemsize, data)
    return data
