"""How the process holds memory: a program decides it, not a library."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of glibc's malloc.h
_KEPT_BYTES = 64 << 20
_LITTLE_KEPT_BYTES = 16 << 20
_LARGEST_KEPT_BYTES = 32 << 20  # glibc takes no larger one
_RETURNED_BYTES = 1 << 20


def keep_freed_memory() -> None:
    """Have malloc keep a little freed memory for what comes next, where it is glibc's; elsewhere nothing changes.

    By default it gives large arrays back at once, and a conversion pays for every new page again: a third of its
    time in the system. It concerns the whole process, so a program decides it, not a library.
    """
    _set(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    _set(_TRIM_THRESHOLD, _KEPT_BYTES)


def return_freed_arrays() -> None:
    """Have malloc map large arrays one by one, where it is glibc's, so that freed ones go back to the system at once.

    By default it raises the size from which it does so up to 32 MiB as such arrays are freed, and keeps what is
    freed below: for a parity run of a base model at length 4096, 0.6 GiB. A little freed memory is kept, too: with
    this size set, malloc would give even the smallest back at once, and pay for every new page.
    """
    _set(_MMAP_THRESHOLD, _RETURNED_BYTES)
    _set(_TRIM_THRESHOLD, _LITTLE_KEPT_BYTES)


def _set(option: int, value: int) -> None:
    mallopt = getattr(own_libc(), "mallopt", None)
    if mallopt:
        mallopt(option, value)


def own_libc() -> ctypes.CDLL | None:
    """The C library of this process, or None where there is no way to it."""
    try:
        return ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):  # not on Windows
        return None
