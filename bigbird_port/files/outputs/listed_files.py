"""Whether a folder holds exactly the files that a manifest lists, byte for byte, and nothing that leads elsewhere."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bigbird_port.files.digests import THREADS, file_digest
from bigbird_port.files.outputs.out_folder import entries, strangers
from bigbird_port.formats.links import in_hub_cache


@dataclass(frozen=True)
class FilesFound:
    """What was found. safe: nothing leads out of the folder, so that it may be read. count, bytes: of files hashed."""

    problems: tuple[str, ...]
    safe: bool
    count: int
    bytes: int


def compare_files(folder: Path, records: Sequence[Mapping[str, Any]]) -> FilesFound:
    """Compare the files in ``folder`` with (name, size, sha256) records; what is refused is not read."""
    outside = [
        f"{record['name']!r} leads out of the folder: refused" for record in records if leads_out(record["name"])
    ]
    if folder.is_symlink():
        outside.append("the folder is a link: refused")
    if outside:
        return FilesFound(tuple(outside), False, 0, 0)
    if not folder.is_dir():
        return FilesFound(("the folder is missing",), False, 0, 0)
    names = Counter(record["name"] for record in records)
    found = {name: folder / name for name, mode in entries(folder) if not stat.S_ISDIR(mode)}
    problems = list(strangers(folder, names).values())
    links = any(path.is_symlink() and not in_hub_cache(path) for path in found.values())
    problems += [f"{name} is listed {times} times" for name, times in names.items() if times > 1]
    problems += [f"{name} is missing" for name in names if name not in found]
    listed = [record for record in records if record["name"] in found]
    with ThreadPoolExecutor(THREADS) as threads:
        problems += filter(None, threads.map(lambda record: _difference(found[record["name"]], record), listed))
    size = sum(record["size"] for record in listed)
    return FilesFound(tuple(problems), not links, len(listed), size)


def leads_out(name: str) -> bool:
    """Whether a name is anything but a plain relative path with forward slashes that stays in its folder."""
    path = PurePosixPath(name)
    odd = not name.isprintable() or "\\" in name or ":" in name
    return odd or path.is_absolute() or not path.parts or ".." in path.parts or str(path) != name


def _difference(path: Path, record: Mapping[str, Any]) -> str | None:
    """How one file differs from its record, or None."""
    if not path.is_file():
        return f"{record['name']} is a link to nothing" if path.is_symlink() else None  # else told already
    if (size := path.stat().st_size) != record["size"]:
        return f"{record['name']} has {size} bytes, listed are {record['size']}"
    return f"{record['name']} differs from its sha256" if file_digest(path) != record["sha256"] else None
