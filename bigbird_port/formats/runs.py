"""Tensors as runs of bytes in files: what most formats come down to once their headers are read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from bigbird_port.files.reading import open_regular
from bigbird_port.formats.limits import MAX_NAME_BYTES, MAX_RANK
from bigbird_port.formats.store import PIECE_BYTES, Stored


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes ``offset`` to ``offset + size`` of a file. crc32c: masked; None where the format has none."""

    path: Path
    offset: int
    size: int
    crc32c: int | None = None

    @property
    def end(self) -> int:
        """Position behind the last byte."""
        return self.offset + self.size


class RunStore:
    """A store whose tensors are runs of bytes, one after the other. runs: by the names of ``tensors``."""

    def __init__(
        self, files: Iterable[Path], tensors: Mapping[str, Stored], runs: Mapping[str, tuple[Run, ...]]
    ) -> None:
        self.files = tuple(files)
        self.tensors = tensors
        self.runs = runs

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the values of one tensor as Store.pieces does."""
        stored = self.tensors[name]
        if stored.dtype is None:
            raise ValueError(f"{self.files[0]}: {name} is {stored.type_name}: expected a numeric array")
        for run in self.runs[name]:
            yield from read_run(run, stored.dtype, name)

    def mapped(self, name: str) -> np.ndarray | None:
        """Return one tensor as a private mapping of its file: nothing is read before it is used, and what is written
        to it stays in memory. None where its bytes cannot stand for it: several runs, a checksum, unaligned.
        """
        stored, runs = self.tensors[name], self.runs[name]
        if stored.dtype is None or stored.dtype.kind == "b" or len(runs) != 1 or not stored.nbytes:
            return None
        (run,) = runs
        if run.crc32c is not None or run.size != stored.nbytes or run.offset % stored.dtype.itemsize:
            return None
        try:
            with open_regular(run.path) as file:
                return np.asarray(np.memmap(file, stored.dtype, "c", run.offset, stored.shape))
        except OSError as error:
            raise ValueError(f"{run.path}: cannot be read: {error.strerror}") from None


def read_run(run: Run, dtype: np.dtype, name: str) -> Iterator[np.ndarray]:
    """Yield the values of one run; raises ValueError where they end too soon or do not match their crc32c."""
    for data in read_bytes(run, name):
        piece = np.frombuffer(data, dtype)
        if dtype.kind == "b" and np.any(piece.view(np.uint8) > 1):
            raise ValueError(f"{run.path}: {name} is of type bool, but holds bytes other than 0 and 1")
        yield piece


def read_bytes(run: Run, name: str) -> Iterator[bytes]:
    """Yield the bytes of one run in pieces of at most PIECE_BYTES; raises ValueError as read_run does."""
    crc, left = 0, run.size
    try:
        with open_regular(run.path) as file:
            file.seek(run.offset)
            while left:
                data = file.read(min(left, PIECE_BYTES))
                left -= len(data)
                if not data or (left and len(data) < PIECE_BYTES):
                    raise ValueError(f"{run.path}: truncated: {name} runs past its end")
                if run.crc32c is not None:
                    crc = google_crc32c.extend(crc, data)
                yield data
    except OSError as error:
        raise ValueError(f"{run.path}: cannot be read: {error.strerror}") from None
    if run.crc32c is not None and masked_crc32c(crc) != run.crc32c:
        raise ValueError(f"{run.path}: {name} does not match its crc32c: the file is damaged; fetch it again")


def masked_crc32c(crc: int) -> int:
    """The masked form in which TensorFlow stores a crc32c."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def check_name(name: str) -> str:
    """Return a tensor's name; raises ValueError if it is empty, too long or not printable."""
    if not name or len(name) > MAX_NAME_BYTES or not name.isprintable():
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        raise ValueError(f"a name in it is {shown!r}: expected 1 to {MAX_NAME_BYTES} printable characters")
    return name


def check_shape(shape: object, name: str) -> tuple[int, ...]:
    """Return a list of sizes as a shape; raises ValueError unless they are integers from 0 to 2**63 - 1."""
    if not isinstance(shape, (list, tuple)) or len(shape) > MAX_RANK:
        raise ValueError(f"{name}: its shape is not a list of at most {MAX_RANK} sizes")
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise ValueError(f"{name}: a size in its shape is {str(size)[:40]}: expected an integer of at least 0")
    return tuple(shape)


def check_apart(runs: Mapping[str, tuple[Run, ...]]) -> None:
    """Raise ValueError where two runs share bytes of a file."""
    placed = sorted((run.path, run.offset, run.end, name) for name in runs for run in runs[name] if run.size)
    for (path, _, end, name), (next_path, offset, _, next_name) in itertools.pairwise(placed):
        if path == next_path and offset < end:
            raise ValueError(f"{path}: {name} and {next_name} overlap at byte {offset}: the file is damaged")
