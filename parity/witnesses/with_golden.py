"""A golden case as a witness: it replays what the original code computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.given.golden import GoldenCase, excuse, tensors_as_taps
from parity.given.inputs import Inputs
from parity.witnesses.witness import Taps


class GoldenWitness:
    """The tensors of a case under their taps' names. It has some of the taps, and runs no layer on another input.

    not_compared: golden tensors that a run of this head rightly has no tap for.
    """

    name, complete, steps, multiple = "golden", False, False, 1

    def __init__(self, case: GoldenCase, head: str, config: BigBirdConfig) -> None:
        self.config, self.initialised = config, list[str]()
        self.not_compared = sorted(name for name in case.tensors if excuse(name, head, config))
        excused = {"pooler_output" if name == "pooled_output" else name for name in self.not_compared}
        self._taps = {name: tap for name, tap in tensors_as_taps(case).items() if name not in excused}

    def digests(self) -> dict[str, str]:
        """Return nothing: a case holds no weights."""
        return {}

    def scale_words(self, factor: float) -> None:
        """Raise, because a file holds results and cannot compute others."""
        raise NotImplementedError("a golden case has no weights")

    def start(self, inputs: Inputs) -> tuple[Taps, None]:
        """Return the embeddings' taps."""
        return self._of("embeddings"), None

    def layer(self, i: int, stream: None) -> tuple[Taps, None]:
        """Return the taps of layer i, and its random blocks."""
        return self._of(f"layer.{i}.") | {name: x for name, x in self._taps.items() if name == f"rand_attn.{i}"}, None

    def finish(self, stream: None, positions: slice | None = None) -> Taps:
        """Return everything after the layers."""
        return {name: x for name, x in self._taps.items() if not name.startswith(("embeddings", "layer.", "rand_"))}

    def inject(self, stream: None, x: np.ndarray) -> Any:
        """Raise, because a file holds results and cannot compute others."""
        raise NotImplementedError("a golden case runs no layer")

    def hidden(self, stream: None) -> np.ndarray:
        """Raise, because a file holds results and cannot compute others."""
        raise NotImplementedError("a golden case runs no layer")

    def loss(self, scores: Taps, labels: Inputs) -> float:
        """Raise, because a file holds results and cannot compute others."""
        raise NotImplementedError("a golden case computes no loss")

    def _of(self, prefix: str) -> Taps:
        return {name: x for name, x in self._taps.items() if name.startswith(prefix)}
