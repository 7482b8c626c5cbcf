"""The one rule for what a folder that convert wrote may hold: its manifest, the files that this lists, nothing else.

A file beside the targets can stand in for one that was converted: a loader that finds other weights there takes them.
So a file, folder, link or device that the manifest does not list is refused, by whatever opens such a folder and by
what replaces it; ``verify`` also compares the bytes. A folder without a manifest is somebody's own, and has no rule.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bigbird_port.conversion.manifest import MANIFEST, self_digest
from bigbird_port.files.json_object import read_json_object
from bigbird_port.formats.links import in_hub_cache

TARGET_FOLDERS = ("neutral", "torch", "flax", "tf")  # in the order in which they are taken for the folder's model
OUT_FOLDERS = (*TARGET_FOLDERS, "onnx", "stablehlo", "saved-model")  # those with programs hold no model to read
_SHOWN = 3  # names that a message shows
_MARKS = {"manifest_version", "schema_version", "targets"}  # that tell ours from those of other programs
_LEVELS = 3  # above a path that a manifest is looked for: OUT/flax/orbax


def check_out(path: Path) -> None:
    """Raise ValueError where ``path`` is or lies in what convert wrote, and something stands there that it did not.

    Names alone are compared. Where nothing is at ``path``, the error says how to get back what a run that was killed
    left beside it, if it left anything.
    """
    if not os.path.lexists(path):
        check_left_over(path)
        return
    out = out_of(path)
    if out is not None and (problems := list(strangers(out, listed_files(out)).values())):
        raise ValueError(
            f"{out}: convert wrote this folder, but {shown(problems)}: nothing is read from it; take away what was "
            "added, or convert again into another folder"
        )


def out_of(path: Path) -> Path | None:
    """The folder that convert wrote which ``path`` is or lies in, as it is named or where its links lead, or None."""
    for start in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        inner = ""
        for folder in (Path(start), *list(Path(start).parents)[:_LEVELS]):
            if inner in ("", *OUT_FOLDERS) and _manifest(folder) is not None:
                return folder
            inner = folder.name
    return None


def holder_of(path: Path) -> Path | None:
    """The folder that convert wrote in which something new at ``path`` would lie, however deep; None if in none."""
    parent = path.absolute().parent
    for start in dict.fromkeys((os.path.abspath(parent), os.path.realpath(parent))):
        for folder in (Path(start), *Path(start).parents):
            if _manifest(folder) is not None:
                return folder
    return None


def listed_files(out: Path) -> list[str]:
    """The names of all files that a manifest lists, below ``out``, and its own; raises ValueError if it was changed."""
    values = _manifest(out)
    if values is None:
        raise ValueError(f"{out / MANIFEST}: there is no manifest: give the folder that convert wrote")
    if values.get("digest") != self_digest(values):
        raise ValueError(f"{out / MANIFEST}: it was changed after it was written: its own digest does not fit")
    try:
        names = [f"{target}/{file['name']}" for target, held in values["targets"].items() for file in held["files"]]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{out / MANIFEST}: it does not list files: convert the checkpoint again") from None
    return [MANIFEST, *names]


def strangers(folder: Path, listed: Iterable[str]) -> dict[str, str]:
    """What stands in a folder and is not listed: name -> why, in words; links and special files even where listed."""
    names = set(listed)
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    found = {
        name: _stranger(folder / name, mode, name in names, name in folders) for name, mode in entries(folder, folders)
    }
    return {name: f"{name if name.isprintable() else repr(name)} {why}" for name, why in found.items() if why}


def shown(problems: list[str]) -> str:
    """The first problems in one line."""
    more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{', '.join(problems[:_SHOWN])}{more}"


def check_left_over(out: Path) -> None:
    """Raise ValueError if ``out``, or the folder above it, is absent and a run that was killed left something of it."""
    for folder in (Path(os.path.abspath(out)), Path(os.path.abspath(out)).parent):
        if not os.path.lexists(folder) and (advice := left_over(folder)):
            raise ValueError(f"{folder}: there is no such folder, but {advice}")


def left_over(out: Path) -> str | None:
    """What a run that was killed left of ``out``, and what to do with it, in words; None if there is nothing."""
    replaced, partial, removed = beside(out)
    if replaced.is_dir():
        return f"a run that was killed set it aside, whole: get it back by: mv {replaced} {out}"
    if partial.is_dir() and (partial / MANIFEST).is_file():
        return (
            f"a run that was killed left {partial}, which may be whole: mv {partial} {out}, then bigbird-port verify; "
            "or run convert again, which clears it away"
        )
    if partial.is_dir() or removed.is_dir():
        found = partial if partial.is_dir() else removed
        return f"a run that was killed left {found}, a part of one: run convert again, which clears it away"
    return None


def beside(out: Path) -> tuple[Path, Path, Path]:
    """Where the old output waits, whole, for the new one; where the new one is filled; where an old one is removed."""
    replaced, partial, removed = (out.parent / f".{out.name}.{end}" for end in ("replaced", "partial", "removed"))
    return replaced, partial, removed


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The values of this project's manifest in a folder; None where there is none: other programs have such files."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        values = read_json_object(path)
    except ValueError as error:
        if any((folder / name).is_dir() for name in OUT_FOLDERS):  # one of ours, damaged: not to be passed over
            raise ValueError(f"{error}; convert the checkpoint again") from None
        return None
    return values if values.keys() >= _MARKS else None


def entries(folder: Path, within: set[str] | None = None) -> Iterator[tuple[str, int]]:
    """The name of everything below a folder, with slashes, and its mode; links are not followed.

    within: the folders that are looked into, None for all.
    """
    folders = [""]
    while folders:
        inner = folders.pop()
        with os.scandir(folder / inner) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                name, mode = f"{inner}{entry.name}", entry.stat(follow_symlinks=False).st_mode
                yield name, mode
                if stat.S_ISDIR(mode) and (within is None or name in within):
                    folders.append(f"{name}/")


def _stranger(path: Path, mode: int, is_file: bool, is_folder: bool) -> str | None:
    if stat.S_ISLNK(mode):
        return None if is_file and in_hub_cache(path) else "is a link, which convert never writes"
    if stat.S_ISDIR(mode):
        return None if is_folder else "is not listed (a folder)"
    if not is_file:
        return "is not listed"
    return None if stat.S_ISREG(mode) else "is not a regular file"
