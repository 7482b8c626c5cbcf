"""Files that an option names and a command writes: whole or not at all, never over what it did not write itself.

Each kind of file is known by how it begins. A file of the same kind is replaced; anything else is refused before the
command does its work, and again before the file gets its name.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bigbird_port.files.outputs.out_folder import out_of
from bigbird_port.files.reading import open_regular, why_unread

STANDARD_OUTPUT = Path("-")
# Kind -> how such a file begins.
BEGINNINGS = {
    "convert --json": rb'\{\n "version": \d+,\n "out": ',
    "parity --json": rb'\{\n "version": \d+,\n "bigbird_port": ',
    "parity --html": rb"<!doctype html>\n<html.{,1000}<title>BigBird parity: ",
    "parity --junit": rb'<\?xml [^>]{,80}\?>\n<testsuites name="bigbird-port parity"',
    "parity --markdown": rb"## BigBird parity: ",
    "parity faults --json": rb'\{\n "passed": (true|false),\n "into": ',
    "parity mutants --json": rb'\{\n "mutants_of": "(torch|flax)",\n ',
    "parity calibrate --out": rb'\{\n "version": \d+,\n "command": "bigbird-port parity calibrate',
    "parity baseline save": rb'\{\n "false_alarm": ',
    "parity --keep": rb'.{8}\{"__metadata__":\{("(sentence|condition)":"(\\.|[^"\\])*",?){2}\}',
}
_BEGINNING_BYTES = 8192


def check_writable(path: Path, kind: str, out: Path | None = None) -> None:
    """Raise ValueError unless a file of this kind may be written at ``path``: nothing is there, or one of the kind.

    out: a folder that will be written, and may hold nothing else. "-" is the standard output, always writable.
    """
    if path == STANDARD_OUTPUT:
        return
    folder = Path(os.path.abspath(path)).parent
    if out is not None and (folder.resolve() == out.resolve() or out.resolve() in folder.resolve().parents):
        raise ValueError(f"{path}: lies in {out}, which may hold nothing but what convert lists: choose another place")
    if not folder.is_dir():
        raise ValueError(f"{path}: there is no folder {folder}: make it first, or choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: cannot be written, because {folder} may not be: choose another place")
    if written := out_of(folder):
        raise ValueError(
            f"{path}: lies in {written}, which convert wrote and which may hold nothing else: choose another place"
        )
    _check_replaceable(path, kind)


def check_all_writable(files: Iterable[tuple[Path, str]], out: Path | None = None) -> None:
    """Raise ValueError unless each (path, kind) may be written, and no two are one file."""
    seen: dict[str, str] = {}
    for path, kind in files:
        check_writable(path, kind, out)
        place = os.path.realpath(path)
        if path != STANDARD_OUTPUT and place in seen:
            raise ValueError(f"{path}: {seen[place]} and {kind} cannot both write it: give each a file of its own")
        seen[place] = kind


def check_kept_folder(folder: Path, kind: str = "parity --keep") -> None:
    """Raise ValueError unless files of this kind may be written into ``folder``, which is made where it is absent."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder}: exists and is not a folder, or is a link: choose another name")
    if written := out_of(folder) or out_of(folder.parent):
        raise ValueError(
            f"{folder}: lies in {written}, which convert wrote and which may hold nothing else: choose another place"
        )
    for path in folder.glob("*.safetensors"):
        _check_replaceable(path, kind)


def write_whole(path: Path, data: str | bytes, kind: str) -> None:
    """Write a file of this kind: under a name of its own, flushed, then renamed. Raises ValueError as check_writable.

    "-" is the standard output.
    """
    raw = data.encode("utf-8") if isinstance(data, str) else data
    if path == STANDARD_OUTPUT:
        sys.stdout.write(raw.decode("utf-8"))
        return
    check_writable(path, kind)
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        with open(partial, "xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        _check_replaceable(path, kind)
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {why_unread(error)}: choose another place") from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _check_replaceable(path: Path, kind: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {why_unread(error)}: choose another place") from None
    if stat.S_ISLNK(found.st_mode):
        raise ValueError(f"{path}: is a link, which is not written through: name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: exists and is not a file: choose another name, or - for the standard output")
    if found.st_size and not _begins(path, kind):
        raise ValueError(
            f"{path}: exists and is not what '{kind}' wrote, and nothing else is overwritten: choose another name"
        )


def _begins(path: Path, kind: str) -> bool:
    try:
        with open_regular(path) as file:
            return re.match(BEGINNINGS[kind], file.read(_BEGINNING_BYTES), re.DOTALL) is not None
    except OSError:
        return False
