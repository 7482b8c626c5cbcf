"""The rule for what a conversion may replace: what convert wrote, whole and alone, and nothing of the source's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bigbird_port.conversion.manifest import MANIFEST
from bigbird_port.files.outputs.out_folder import (
    OUT_FOLDERS,
    beside,
    holder_of,
    listed_files,
    out_of,
    shown,
    strangers,
)
from bigbird_port.files.reading import read_whole

_REPOSITORIES = (".git", ".hg", ".svn")
_MOUNTS = Path("/proc/self/mountinfo")
_ELSE = "choose another name"


def check_replaceable(out: Path, overwrite: bool, source: Path | None = None) -> None:
    """Raise ValueError unless ``out`` may be written: it is absent or empty, or ``overwrite`` is set and it is ours.

    Ours is a folder with a manifest of convert's and nothing that this does not list, which is not, holds not and lies
    not in ``source``, and is no link, no mount point and no repository. Names are looked at; no weights are read.
    """
    out = Path(os.path.abspath(out))
    if source is not None:
        for folder in beside(out):
            if folder.exists() and (how := overlap(folder, source)) in ("is", "holds"):
                raise ValueError(
                    f"{source}: {folder} {how} this source, and convert clears that away: move the source elsewhere"
                )
    if out.is_symlink():
        raise ValueError(f"{out}: is a symbolic link: name the folder to write itself, or remove the link")
    if holder := holder_of(out):
        raise ValueError(f"{out}: lies in {holder}, which convert wrote and which may hold nothing else: {_ELSE}")
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out}: exists and is not a folder: {_ELSE}")
    _check_place(out)
    if is_empty(out):
        return
    if not overwrite:
        raise ValueError(f"{out}: exists already: {_ELSE}, or replace it with --overwrite")
    if source is not None and (how := overlap(out, source)):
        raise ValueError(f"{out}: it {how} the source {source}, which --overwrite never removes: {_ELSE}")
    if found := next((name for name in _REPOSITORIES if os.path.lexists(out / name)), None):
        raise ValueError(f"{out}: is a repository ({found} is in it), which --overwrite never removes: {_ELSE}")
    if out_of(out) != Path(os.path.realpath(out)) and out_of(out) != out:
        raise ValueError(
            f"{out}: there is no {MANIFEST} of convert's in it, and --overwrite replaces what convert wrote alone: "
            f"{_ELSE}, or remove it yourself"
        )
    if others := list(strangers(out, listed_files(out)).values()):
        raise ValueError(f"{out}: --overwrite would remove what convert did not write: {shown(others)}: move it away")


def check_sources_apart(out: Path, files: Iterable[Path]) -> None:
    """Raise ValueError if a file that is to be read lies in ``out``, or a link in the source leads there."""
    out = Path(os.path.abspath(out))
    for file in files:
        if out.exists() and overlap(out, file):
            raise ValueError(f"{file}: is read, and lies in {out}, which would be replaced: {_ELSE}")


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder."""
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def check_ours(folder: Path) -> None:
    """Raise ValueError if a folder that convert would clear away holds anything but what convert puts there."""
    others = sorted(path.name for path in folder.iterdir() if path.name not in (*OUT_FOLDERS, MANIFEST))
    if others:
        raise ValueError(f"{folder}: in the way: it holds {shown(others)}, which convert did not write: move it away")


def overlap(out: Path, source: Path) -> str | None:
    """How a folder and a source meet, in words: by the folders themselves, whatever links lead to them; None if apart.

    source: a path of any kind, also a TensorFlow prefix, of which no file has the name.
    """
    own = os.stat(out)
    for i, above in enumerate(_with_parents(source)):
        if _same(above, own):
            return "is" if i == 0 else "holds"
    if source.is_dir():
        found = os.stat(source)
        if any(_same(above, found) for above in _with_parents(out)):
            return "lies in"
    return None


def _with_parents(path: Path) -> Iterator[Path]:
    """A path and all that it lies in, where its links lead, then as it is named."""
    for start in dict.fromkeys((os.path.realpath(path), os.path.abspath(path))):
        yield Path(start)
        yield from Path(start).parents


def _same(path: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), found)
    except OSError:
        return False


def _check_place(out: Path) -> None:
    """Raise ValueError for a folder whose name cannot be given to another: in use as a mount, or by this process."""
    real = os.path.realpath(out)
    if os.path.ismount(real) or any(mount == real or mount.startswith(f"{real}/") for mount in _mounts()):
        raise ValueError(f"{out}: is or holds a mount point, which cannot be replaced: name a folder in it")
    if any(_same(above, os.stat(out)) for above in _with_parents(Path.cwd())):
        raise ValueError(f"{out}: is, or holds, the folder that you are in: go to the one above it and name it there")


def _mounts() -> list[str]:
    """Where file systems are mounted, as far as the system tells; it alone tells of a folder of the same disk."""
    try:
        lines = os.fsdecode(read_whole(_MOUNTS)).splitlines()
    except OSError:
        return []
    places = (line.split(" ")[4] for line in lines if line.count(" ") > 4)
    return [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place) for place in places]
