"""Where a tap stands: its full name, with the number of a layer in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bigbird_port.families.family import Tap

LAYER = "{i}"  # stands for a layer's number in the names of a family


@dataclass(frozen=True)
class Place:
    """A tap by its full name. layer: the number in the name, None where it has none."""

    tap: Tap
    layer: int | None

    @property
    def module(self) -> str:
        """Canonical name of the module."""
        return self._filled(self.tap.module)

    @property
    def sources(self) -> tuple[str, ...]:
        """Full names of what it is computed from."""
        return tuple(map(self._filled, self.tap.sources))

    def _filled(self, name: str) -> str:
        return name.replace(LAYER, str(self.layer))
