"""Outputs that appear whole or not at all: written beside, flushed to disk, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` on leaving, and vanishes on an error.

    Raises ValueError if ``out`` exists and ``overwrite`` is not set, or where it cannot be written.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not overwrite:
        raise ValueError(f"{out}: exists already: choose another name, or replace it with --overwrite")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: exists and is not a folder: choose another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}: choose a folder that can") from None
    try:
        yield staged
        staged.chmod(0o777 & ~_umask())
        _flush(staged)
        _replace(staged, out)
    except OSError as error:
        raise ValueError(
            f"{out}: writing failed: {error.strerror or error}: nothing was left behind; free some space or choose "
            "another disk, and run it again"
        ) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _replace(staged: Path, out: Path) -> None:
    if not out.exists():
        staged.rename(out)
    else:
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.replaced-", dir=out.parent))
        out.rename(aside / out.name)
        staged.rename(out)
        shutil.rmtree(aside)
    _flush_one(out.parent)


def _flush(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _flush_one(path)
    _flush_one(folder)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
