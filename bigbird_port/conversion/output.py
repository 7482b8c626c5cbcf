"""Outputs that appear whole or not at all: written beside, flushed to disk, then renamed, by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bigbird_port.formats.filling import flush_one

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # not on Windows, where two conversions into one folder are not told apart
    flock = None  # type: ignore[assignment]

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_DIRECTORY", 0)


@contextmanager
def whole_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Give a new folder beside ``out`` to fill; on success it becomes ``out``, on any error it is removed.

    What a killed run left beside ``out`` is removed first. Raises ValueError if ``out`` exists and ``overwrite`` is
    not set, if another process is writing it, or where it cannot be written.
    """
    out = Path(os.path.abspath(out))
    _check_free(out, overwrite)
    staged, lock = _claim(out)
    try:
        _recover(out)
        _check_free(out, overwrite)
        yield staged
        _flush(staged)
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
        os.close(lock)


def _check_free(out: Path, overwrite: bool) -> None:
    if out.is_symlink():
        raise ValueError(f"{out}: is a symbolic link: name the folder to write itself, or remove the link")
    if out.exists() and not overwrite:
        raise ValueError(f"{out}: exists already: choose another name, or replace it with --overwrite")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: exists and is not a folder: choose another name")


def _claim(out: Path) -> tuple[Path, int]:
    """Make (or take over, emptied) the folder to fill, and lock it; returns it and the lock's descriptor.

    The lock goes with the process, so what a killed one left can be told from what a living one is filling.
    """
    staged = out.parent / f".{out.name}.partial"
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
    for path in staged.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return staged, lock


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether a path still names what was opened by it."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _aside(out: Path) -> tuple[Path, Path]:
    """Where the old output waits for the new one, whole, and where it is then removed, maybe half."""
    return out.parent / f".{out.name}.replaced", out.parent / f".{out.name}.removed"


def _recover(out: Path) -> None:
    """Undo or finish what a run that ended while it replaced ``out`` had begun."""
    old, removed = _aside(out)
    if old.exists() and not out.exists():
        old.rename(out)
    _discard(old, removed)


def _replace(staged: Path, out: Path) -> None:
    old, removed = _aside(out)
    if out.exists():
        out.rename(old)
    staged.rename(out)
    flush_one(out.parent)
    _discard(old, removed)


def _discard(old: Path, removed: Path) -> None:
    """Remove the old output; the next process, which may begin once the new one has its name, may be at it as well."""
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(FileNotFoundError):
        old.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        flush_one(path)
    flush_one(folder)
