"""Where something goes in a target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where one weight goes: its name in the target, the layout of its bytes, and the shape that is written."""

    name: str
    axes: str
    shape: tuple[int, ...]
