"""Outputs that appear whole or not at all: written beside, flushed to disk, then renamed, by one process at a time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bigbird_port.files.outputs.exchange_names import exchange_names
from bigbird_port.files.outputs.out_folder import beside, listed_files, shown, strangers
from bigbird_port.files.outputs.replaceable import check_ours, check_replaceable, is_empty
from bigbird_port.formats.filling import flush_one

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # not on Windows, where two conversions into one folder are not told apart
    flock = None  # type: ignore[assignment]

_LOCK_TRIES, _LOCK_SECONDS = 100, 0.1
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_DIRECTORY", 0)


@contextmanager
def whole_folder(out: Path, overwrite: bool, source: Path | None = None) -> Iterator[Path]:
    """Give a new folder beside ``out`` to fill; on success it becomes ``out``, on any error it is removed.

    What a killed run left beside ``out`` is removed first. Raises ValueError if ``out`` may not be written
    (replaceable.check_replaceable), if another process is writing it, or where it cannot be written.
    """
    out = Path(os.path.abspath(out))
    check_replaceable(out, overwrite, source)
    staged, lock = _claim(out)
    old: list[int] = []  # the folder that is replaced, locked: nobody else is to take its place while it is removed
    try:
        _recover(out)
        check_replaceable(out, overwrite, source)
        yield staged
        _flush(staged)
        check_replaceable(out, overwrite, source)  # again: it took a while
        if out.exists():
            old.append(_lock(out))
        _replace(staged, out)
    except OSError as error:
        raise ValueError(
            f"{out}: writing failed: {error.strerror or error}: nothing was left behind; free some space or choose "
            "another disk, and run it again"
        ) from None
    finally:
        if _is_open(staged, lock):  # else it is the output now, and what has its name is another process's
            _recover(out)
            shutil.rmtree(staged, ignore_errors=True)
        elif old and _is_open(staged, old[0]):  # exchanged with the output
            shutil.rmtree(staged, ignore_errors=True)
        for descriptor in (*old, lock):
            os.close(descriptor)


def _claim(out: Path) -> tuple[Path, int]:
    """Make (or take over, emptied) the folder to fill, and lock it; returns it and the lock's descriptor.

    The lock goes with the process, so what a killed one left can be told from what a living one is filling.
    """
    _, staged, _ = beside(out)
    while True:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            staged.mkdir(exist_ok=True)
        except OSError as error:
            raise ValueError(f"{out}: cannot be written: {error.strerror}: choose a folder that can") from None
        try:
            lock = os.open(staged, os.O_RDONLY | _NO_LINK)
        except FileNotFoundError:
            continue  # renamed or removed by its owner since
        except OSError as error:
            raise ValueError(f"{staged}: in the way: {error.strerror}: remove it, or choose another name") from None
        try:
            if flock is not None:
                flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ValueError(
                f"{out}: another process is writing it now: wait until it is done, or choose another name"
            ) from None
        if _is_open(staged, lock):
            break
        os.close(lock)  # locked too late: that folder is another process's finished output
    try:
        check_ours(staged)
    except ValueError:
        os.close(lock)
        raise
    for path in staged.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return staged, lock


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether a path still names what was opened by it."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(out: Path) -> int:
    """Open the folder that will be replaced and lock it; whoever wrote it may be about to let it go."""
    descriptor = os.open(out, os.O_RDONLY | _NO_LINK)
    for _ in range(_LOCK_TRIES):
        try:
            if flock is not None:
                flock(descriptor, LOCK_EX | LOCK_NB)
            return descriptor
        except BlockingIOError:
            time.sleep(_LOCK_SECONDS)
    os.close(descriptor)
    raise ValueError(f"{out}: another process is writing it now: wait until it is done, or choose another name")


def _recover(out: Path) -> None:
    """Undo or finish what a run that ended while it replaced ``out`` had begun."""
    old, _, removed = beside(out)
    if old.exists() and not out.exists():
        old.rename(out)
    _discard(old, removed)


def _replace(staged: Path, out: Path) -> None:
    """Give the new folder the output's name; the old one has that of ``staged`` then, or is removed."""
    if not out.exists():
        staged.rename(out)
        flush_one(out.parent)
        return
    listed = [] if is_empty(out) else listed_files(out)
    if not exchange_names(staged, out):
        _replace_in_two_steps(staged, out)
        return
    if others := list(strangers(staged, listed).values()):  # put there since it was looked at
        exchange_names(staged, out)
        raise ValueError(f"{out}: --overwrite would remove what convert did not write: {shown(others)}: move it away")
    flush_one(out.parent)


def _replace_in_two_steps(staged: Path, out: Path) -> None:
    """Where names cannot be exchanged: a run that is killed between the steps leaves the old output set aside."""
    old, _, removed = beside(out)
    out.rename(old)
    staged.rename(out)
    flush_one(out.parent)
    _discard(old, removed)


def _discard(old: Path, removed: Path) -> None:
    """Remove the old output; the next process, which may begin once the new one has its name, may be at it as well."""
    for folder in (old, removed):
        with suppress(FileNotFoundError):
            check_ours(folder)
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(FileNotFoundError):
        old.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        flush_one(path)
    flush_one(folder)
