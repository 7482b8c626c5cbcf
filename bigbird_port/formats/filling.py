"""Files filled out of order and read back: the disk's side of a conversion."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import google_crc32c
import numpy as np

from bigbird_port.files.memory import own_libc
from bigbird_port.files.reading import open_unbuffered
from bigbird_port.formats.file_plan import FilePlan, Format, Planned, Segment
from bigbird_port.formats.store import PIECE_BYTES

_FLUSHED_BYTES = 1 << 20  # at least: small writes are left to the system
_SYNC_FILE_RANGE_WRITE = 2  # of Linux's fs.h: begin, and do not wait
_sync_file_range = getattr(own_libc(), "sync_file_range", None)
if _sync_file_range:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


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
                place = segment.offset + at - begin
                done = os.pwrite(self.descriptor, data[: end - at].data, place)
                begin_flush(self.descriptor, place, done)
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


def write_arrays(folder: Path, form: Format, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as new files of a format, in place of those of the same names; raises ValueError as it does."""
    tensors = {name: Planned(array.dtype, array.shape) for name, array in arrays.items()}
    plans, crc32c = form.plan(tensors), {}
    for plan in plans:
        (folder / plan.name).unlink(missing_ok=True)
    with open_files(plans, folder) as files:
        for name, array in arrays.items():
            data = as_bytes(np.ascontiguousarray(array))
            crc32c[name] = google_crc32c.value(data)
            files[name].write(0, data)
    with open_files(form.finish(tensors, crc32c), folder):
        pass


def as_bytes(values: np.ndarray) -> np.ndarray:
    """The bytes of a contiguous array, not copied; read-only, which the crc32c package insists on."""
    data = values.reshape(-1).view(np.uint8)
    data.flags.writeable = False
    return data


def read_back(plan: FilePlan, path: Path, crc32c: Mapping[str, int]) -> str:
    """Read a written file again and return its sha256; raises ValueError naming what differs from what was written."""
    digest = hashlib.sha256()
    regions: list[tuple[int, int, str | bytes]] = [(at, len(literal), literal) for at, literal in plan.literals]
    regions += [(part.offset, part.size, name) for name, parts in plan.slots.items() for part in parts]
    found = dict.fromkeys(plan.slots, 0)
    with open_unbuffered(path) as file:
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


def begin_flush(descriptor: int, offset: int, size: int) -> None:
    """Have the system begin to write bytes of a file to the disk, where it is Linux: less is left for fsync."""
    if _sync_file_range and size >= _FLUSHED_BYTES:
        _sync_file_range(descriptor, offset, size, _SYNC_FILE_RANGE_WRITE)


def flush_one(path: Path) -> None:
    """Have the system write a file or folder to the disk."""
    with suppress(PermissionError):  # a folder that may be written but not read
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
