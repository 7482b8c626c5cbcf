"""The one way in which files are opened for reading: regular files alone, of bounded size.

A named pipe would block its reader for ever, a device such as /dev/zero has no end, and either can stand where a file
is expected: as an option's value, or under a file's name in a folder that somebody sent.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

MAX_TEXT_BYTES = 1 << 28  # of a file that is read whole: the largest is a report of parity, of some tens of megabytes
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, most: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading; raises OSError where it is none, or has more than ``most`` bytes."""
    return io.BufferedReader(open_unbuffered(path, most))


def open_unbuffered(path: Path, most: int | None = None) -> io.FileIO:
    """Open a regular file as open_regular does, each of whose reads goes to the system."""
    check_regular(path)  # before it is opened: to open some devices is to change them
    file = io.FileIO(os.open(path, _FLAGS))  # not blocking, should it have become a pipe since
    try:
        _check(path, os.fstat(file.fileno()), most)
    except BaseException:
        file.close()
        raise
    return file


def check_regular(path: Path, most: int | None = None) -> int:
    """Return the size of a regular file that a library will open; raises OSError as open_regular does."""
    found = os.stat(path)
    _check(path, found, most)
    return found.st_size


def read_whole(path: Path, most: int = MAX_TEXT_BYTES) -> bytes:
    """Return all bytes of a regular file; raises OSError as open_regular does."""
    data = bytearray()
    with open_regular(path, most) as file:
        while piece := file.read(1 << 20):  # one read of the whole bound would take its memory at once
            data += piece
            if len(data) > most:  # it grew
                raise _too_large(path, len(data), most)
    return bytes(data)


def read_text(path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """Return a regular file's text; raises OSError as open_regular does, UnicodeDecodeError where it is not UTF-8."""
    return read_whole(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def is_there(path: Path) -> bool:
    """Whether a file stands at a path; raises ValueError for what stands there as a file and cannot be read as one.

    A pipe, a device and a link to nothing are no files that are absent: whoever put them there meant something.
    """
    if not os.path.lexists(path) or path.is_dir():
        return False
    try:
        check_regular(path)
    except OSError as error:
        if path.is_symlink() and isinstance(error, FileNotFoundError):
            raise ValueError(
                f"{path}: cannot be read: it is a link to {os.readlink(path)}, which is not there: fetch that file"
            ) from None
        raise ValueError(f"{path}: cannot be read: {why_unread(error)}") from None
    return True


def why_unread(error: OSError) -> str:
    """The reason in an error of opening or reading, without its number and path."""
    return error.strerror or str(error)


def _check(path: Path, found: os.stat_result, most: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "something else")
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, f"it is {kind}: expected a regular file", str(path))
    if most is not None and found.st_size > most:
        raise _too_large(path, found.st_size, most)


def _too_large(path: Path, size: int, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {size} bytes: more than {most} bytes are not read", str(path))
