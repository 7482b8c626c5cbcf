"""Outputs that appear whole or not at all: written beside, flushed to disk, then renamed, by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigbird_port.filling import flush_one

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # not on Windows, where two conversions into one folder are not told apart
    flock = None  # type: ignore[assignment]


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
        shutil.rmtree(staged, ignore_errors=True)
        os.close(lock)


def _check_free(out: Path, overwrite: bool) -> None:
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
            lock = os.open(staged, os.O_RDONLY)
        except FileNotFoundError:
            continue  # renamed or removed by its owner between the two calls
        except OSError as error:
            raise ValueError(f"{out}: cannot be written: {error.strerror}: choose a folder that can") from None
        try:
            if flock is not None:
                flock(lock, LOCK_EX | LOCK_NB)
            if os.stat(staged).st_ino == os.fstat(lock).st_ino:
                break
        except BlockingIOError:
            os.close(lock)
            raise ValueError(
                f"{out}: another process is writing it now: wait until it is done, or choose another name"
            ) from None
        except FileNotFoundError:
            pass
        os.close(lock)  # locked too late: that folder is another process's finished output
    for path in staged.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return staged, lock


def _aside(out: Path) -> Path:
    return out.parent / f".{out.name}.replaced"


def _recover(out: Path) -> None:
    """Undo or finish what a run that was killed while it replaced ``out`` had begun."""
    aside = _aside(out)
    if aside.exists():
        shutil.rmtree(aside) if out.exists() else aside.rename(out)


def _replace(staged: Path, out: Path) -> None:
    if not out.exists():
        staged.rename(out)
    else:
        out.rename(_aside(out))
        staged.rename(out)
        shutil.rmtree(_aside(out))
    flush_one(out.parent)


def _flush(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        flush_one(path)
    flush_one(folder)
