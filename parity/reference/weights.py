"""Where the reference's weights are: in their file, until they are asked for; a third model need not be in memory.

To read a layer again costs about a hundredth of running it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bigbird_port.conversion.source import open_source

_KEPT = (np.float32, np.float64)  # a float32 is widened where it is used; NumPy does not compute with bfloat16


class StoredWeights(Mapping[str, np.ndarray]):
    """Canonical weights of a model folder that read_model_folder has read and judged, in their stored types."""

    def __init__(self, folder: Path, names: list[str], held: Mapping[str, np.ndarray]) -> None:
        """Open the folder. names: of all weights; held: those that the folder lacks."""
        self._source, self._names, self._held = open_source(folder), names, dict(held)
        match = self._source.match(self._source.head)
        self._stored = match.sources | match.unused

    def __getitem__(self, name: str) -> np.ndarray:
        return self._held[name] if name in self._held else self._source.weight(name, self._stored[name])

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Widened(Mapping[str, np.ndarray]):
    """Weights of any type as ones to compute with: float32 and float64 as they are, narrower ones as float64."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.given = weights

    def __getitem__(self, name: str) -> np.ndarray:
        x = self.given[name]
        return x if x.dtype in _KEPT else x.astype(np.float64)

    def __contains__(self, name: object) -> bool:
        return name in self.given

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)
