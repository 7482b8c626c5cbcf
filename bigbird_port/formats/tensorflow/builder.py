"""Put a file plan together from front to back."""

from __future__ import annotations

import math

from bigbird_port.formats.file_plan import FilePlan, Planned, Segment


def nbytes(tensor: Planned) -> int:
    """Size of a tensor's values in bytes; raises ValueError for big-endian ones, which none of the formats holds."""
    if tensor.dtype.byteorder == ">":
        raise ValueError(f"a tensor is planned as {tensor.dtype.str}, big-endian, but files hold little-endian values")
    return math.prod(tensor.shape) * tensor.dtype.itemsize


class FileBuilder:
    """One file under construction; literals that touch become one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 0
        self._in_literal = False
        self._literals: list[tuple[int, bytearray]] = []
        self._slots: dict[str, list[Segment]] = {}

    def literal(self, data: bytes) -> None:
        """Append bytes."""
        if not self._in_literal:
            self._literals.append((self.size, bytearray()))
        self._literals[-1][1].extend(data)
        self._in_literal = True
        self.size += len(data)

    def slot(self, tensor: str, size: int) -> None:
        """Append room for the next ``size`` bytes of a tensor."""
        self._slots.setdefault(tensor, []).append(Segment(self.size, size))
        self._in_literal = False
        self.size += size

    def plan(self) -> FilePlan:
        """Return the plan of what was appended."""
        literals = tuple((offset, bytes(data)) for offset, data in self._literals)
        return FilePlan(self.name, self.size, literals, {name: tuple(parts) for name, parts in self._slots.items()})


def literal_file(name: str, data: bytes) -> FilePlan:
    """Return the plan of a file that holds no tensor."""
    return FilePlan(name, len(data), ((0, data),), {})
