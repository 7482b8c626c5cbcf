"""Freed arrays go back to the system at once."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD, _BYTES = -3, 4 << 20  # mallopt's name for it (malloc.h), and the size from which it applies


def return_freed_arrays() -> None:
    """Make glibc map large arrays one by one, for the whole process; elsewhere do nothing.

    By default it raises the size from which it does so up to 32 MiB as such arrays are freed, and keeps what is
    freed below: for a base model at length 4096, 0.6 GiB.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _BYTES)
