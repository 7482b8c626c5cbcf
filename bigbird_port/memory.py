"""How the process holds memory while it converts."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of glibc's malloc.h
_KEPT_BYTES = 64 << 20
_LARGEST_KEPT_BYTES = 32 << 20  # glibc takes no larger one


def keep_freed_memory() -> None:
    """Have malloc keep a little freed memory for what comes next, where it is glibc's; elsewhere nothing changes.

    By default it gives large arrays back at once, and a conversion pays for every new page again: a third of its
    time in the system. It concerns the whole process, so a program decides it, not a library.
    """
    mallopt = getattr(_own_libc(), "mallopt", None)
    if mallopt:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def _own_libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # not on Windows
        return None
