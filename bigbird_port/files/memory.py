"""How much freed memory the process keeps.

These settings concern the whole process. So the command line sets them, and a library that is imported does not.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of glibc's malloc.h
_KEPT_BYTES = 64 << 20
_LITTLE_KEPT_BYTES = 16 << 20
_LARGEST_KEPT_BYTES = 32 << 20  # glibc takes no larger one
_RETURNED_BYTES = 1 << 20


def keep_freed_memory() -> None:
    """Let malloc keep some freed memory for the next arrays. Only glibc's malloc can; elsewhere nothing changes.

    By default glibc gives a large array back to the system as soon as it is freed. A conversion then pays for every
    page of the next array again, which takes a third of its time in the system.
    """
    _set(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    _set(_TRIM_THRESHOLD, _KEPT_BYTES)


def return_freed_arrays() -> None:
    """Let malloc give large arrays back to the system as soon as they are freed. Only glibc's malloc can.

    By default glibc raises the size that counts as large, up to 32 MiB, whenever such an array is freed, and keeps
    smaller arrays. In a parity run of a base model at length 4096 it keeps 0.6 GiB. Some freed memory is still kept
    here. Otherwise malloc would give even the smallest piece back, and pay for every new page.
    """
    _set(_MMAP_THRESHOLD, _RETURNED_BYTES)
    _set(_TRIM_THRESHOLD, _LITTLE_KEPT_BYTES)


def _set(option: int, value: int) -> None:
    mallopt = getattr(own_libc(), "mallopt", None)
    if mallopt:
        mallopt(option, value)


def own_libc() -> ctypes.CDLL | None:
    """Return the C library of this process, or None where it cannot be opened."""
    try:
        return ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):  # not on Windows
        return None
