"""A weight file as a plan: literal bytes and slots for tensors, all positions known before any value is read.

So one pass over the source fills several files at once, in any order, with little memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Segment:
    """Bytes ``offset`` to ``offset + size`` of a file."""

    offset: int
    size: int


@dataclass(frozen=True)
class FilePlan:
    """One file. literals: (offset, bytes). slots: where the bytes of each tensor go, in C order, by its name."""

    name: str
    size: int
    literals: tuple[tuple[int, bytes], ...]
    slots: Mapping[str, tuple[Segment, ...]]


@dataclass(frozen=True)
class Planned:
    """Type and shape of a tensor to be written, as the file is to hold it."""

    dtype: np.dtype
    shape: tuple[int, ...]


class Format(Protocol):
    """How one kind of weight file is laid out."""

    def plan(self, tensors: Mapping[str, Planned]) -> list[FilePlan]:
        """Return the files that hold ``tensors``; raises ValueError where the format cannot."""
        ...

    def finish(self, tensors: Mapping[str, Planned], crc32c: Mapping[str, int]) -> list[FilePlan]:
        """Return the files that can only be written once every tensor's crc32c (unmasked) is known; often none."""
        ...


@dataclass(frozen=True)
class TwoFormats:
    """Two files' formats as one: ``apart`` are the names of the tensors that the second of them holds."""

    first: Format
    second: Format
    apart: frozenset[str]

    def plan(self, tensors: Mapping[str, Planned]) -> list[FilePlan]:
        """Return the files of both; raises ValueError as they do."""
        ours, others = self._parts(tensors)
        return [*self.first.plan(ours), *self.second.plan(others)]

    def finish(self, tensors: Mapping[str, Planned], crc32c: Mapping[str, int]) -> list[FilePlan]:
        """Return what can only be written once every tensor's crc32c is known, of both."""
        ours, others = self._parts(tensors)
        return [*self.first.finish(ours, crc32c), *self.second.finish(others, crc32c)]

    def _parts(self, tensors: Mapping[str, Planned]) -> tuple[dict[str, Planned], dict[str, Planned]]:
        parts: tuple[dict[str, Planned], dict[str, Planned]] = ({}, {})
        for name, tensor in tensors.items():
            parts[name in self.apart][name] = tensor
        return parts
