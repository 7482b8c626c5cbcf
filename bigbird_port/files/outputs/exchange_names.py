"""Two names of one folder exchanged in one step, so that no moment shows neither: renameat2 of Linux."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from bigbird_port.files.memory import own_libc

_CURRENT_FOLDER = -100  # AT_FDCWD of Linux's fcntl.h: paths are as everywhere
_RENAME_EXCHANGE = 2  # of Linux's fs.h
_renameat2 = getattr(own_libc(), "renameat2", None)
if _renameat2:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
# What a system, or a file system, says that cannot do it.
_UNABLE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def exchange_names(first: Path, second: Path) -> bool:
    """Exchange two files or folders that exist, in one step; False, and nothing is done, where that is not to be had.

    Raises OSError where it fails for another reason.
    """
    if not _renameat2:
        return False
    ctypes.set_errno(0)
    names = os.fsencode(first), os.fsencode(second)
    if _renameat2(_CURRENT_FOLDER, names[0], _CURRENT_FOLDER, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNABLE:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))
