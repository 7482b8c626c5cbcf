"""Numbers of bytes as people write them: "500MB", "2GiB"."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(size: int | str) -> int:
    """Return the number of bytes that "500MB" or "2GiB" means; an integer is returned as it is.

    Raises ValueError for anything else, and for less than 1 byte.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(size))
    count = int(float(found[1]) * _UNITS.get(found[2].upper(), 0)) if found else 0
    if count < 1:
        raise ValueError(f"{size!r} is not a size: expected a number of bytes such as 500MB or 2GiB")
    return count
