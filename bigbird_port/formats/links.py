"""Files of a checkpoint folder: there, regular, and not links that lead out of the folder."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_allowed = 0  # how many times links that lead out of their folder are followed at present, in this process


@contextmanager
def following_links() -> Iterator[None]:
    """Follow links that lead out of their folder, in all threads: where the user says that the source is trusted.

    What a link leads to must still be a regular file.
    """
    global _allowed
    _allowed += 1
    try:
        yield
    finally:
        _allowed -= 1


def file_size(path: Path) -> int:
    """Return the size in bytes of a regular file; raises ValueError if it is none or lies elsewhere.

    An unpacked archive may hold a link to any file of this machine, and reading that could publish it.
    """
    try:
        found = path.stat()
        check_link(path)
    except (OSError, RuntimeError) as error:  # before Python 3.13, a loop of links is a RuntimeError
        raise ValueError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: not a regular file")
    return found.st_size


def check_link(path: Path) -> None:
    """Raise ValueError if ``path`` is a link that leads out of its folder, unless such links are followed."""
    if _allowed or not path.is_symlink():
        return
    target, folder = path.resolve(), path.parent.resolve()
    if not target.is_relative_to(folder) and not _leads_to_blobs(target, folder):
        raise ValueError(
            f"{path}: a link that leads out of its folder, to {target}: if you trust where it came from, follow such "
            "links with --follow-links, or give that file itself"
        )


def in_hub_cache(path: Path) -> bool:
    """Whether a link is one that Hugging Face's cache made for a file of a downloaded model."""
    return _leads_to_blobs(path.resolve(), path.parent.resolve())


def _leads_to_blobs(target: Path, folder: Path) -> bool:
    # Hugging Face's cache keeps models--NAME/snapshots/REVISION/FILE as a link to models--NAME/blobs/DIGEST: such
    # links stay inside one downloaded model, which the same sender made whole, so they lead nowhere foreign.
    for ancestor in (folder, *folder.parents):
        if ancestor.name == "snapshots":
            return target.is_relative_to(ancestor.parent / "blobs")
    return False


def plain_name(name: object) -> bool:
    """Whether ``name`` names a file in the same folder: no path, no '..', nothing unprintable."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and len(name.encode("utf-8", "replace")) <= 255
        and name.isprintable()
        and not set(name) & set("/\\:")
    )
