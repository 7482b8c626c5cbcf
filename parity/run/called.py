"""The whole model in one call, as its users call it.

The walk runs a model module by module. A call may take other paths: it may leave out blocks of padding. So every
framework is called as well. What it returns for real tokens is compared with what the truth computed in its walk. What
it returns for padding does not count.

A language model's scores of a long text are larger than the model. There the base model is called, and its hidden
states are scored in pieces. Only so many texts are called together as keep memory small.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from parity.given.inputs import Inputs, portions
from parity.run.compare import Scene, compare
from parity.run.results import Part, Row
from parity.witnesses.witness import FRAMEWORKS, Framework, Taps, pairs

_AT_ONCE = 1 << 22  # elements of hidden states in a call, 16 MiB in float32: a text of 4096 tokens at base size


class Called:
    """What each framework among ``witnesses`` returned for a head; in_pieces: the base model alone was called."""

    def __init__(self, head: str, witnesses: dict[str, Any], inputs: Inputs, in_pieces: bool) -> None:
        self._witnesses, self._in_pieces = witnesses, in_pieces
        family = next(iter(witnesses.values())).config.family
        own, self._hidden = family.heads[head], family.hidden
        returns_hidden = in_pieces or not any(tap.scores for tap in own.taps)
        self._wanted = (self._hidden, *own.returned) if returns_hidden else own.returned
        self._returned: dict[str, list[Any]] = {}
        for name in (name for name in FRAMEWORKS if name in witnesses):
            witness: Framework = witnesses[name]
            call = witness.call_base if in_pieces else witness.call
            tokens = _AT_ONCE // witness.config.hidden_size
            self._returned[name] = [call(some) for _, some in portions(inputs, tokens, witness.multiple)]

    def rows(
        self, scene: Scene, taps: dict[str, Taps], streams: dict[str, Any], positions: slice | None, part: Part | None
    ) -> Iterator[Row]:
        """Yield the rows of some positions (None: all), given every witness's taps of the head there."""
        scene = replace(scene, real_BL=scene.real_BL[:, positions or slice(None)])
        sides = {name: self._walked(name, taps[name], streams[name], positions) for name in taps}
        sides |= {name: self._joined(name, taps[name], positions) for name in self._returned}
        for pair in (pair for pair in pairs(tuple(taps)) if pair[0] in self._returned):
            value, reference = (
                {tap: x for tap, x in sides[name].items() if scene.holds(pair, "called", tap, x)} for name in pair
            )
            partial = not self._witnesses[pair[1]].complete
            if reference or (value and not partial):  # else there is nothing but padding, or a case of another head
                yield from compare(scene, pair, "called", "head", (value, reference), (False, partial), part)

    def _walked(self, name: str, taps: Taps, stream: Any, positions: slice | None) -> Taps:
        """What a witness has computed stage by stage, as the fields of what a call returns."""
        hidden = {}
        if self._hidden in self._wanted and self._witnesses[name].steps:
            hidden = {self._hidden: self._witnesses[name].hidden(stream)[:, positions or slice(None)]}
        return {tap: x for tap, x in (hidden | taps).items() if tap in self._wanted}

    def _joined(self, name: str, taps: Taps, positions: slice | None) -> Taps:
        """What the calls of all texts returned, of those taps that there are at some positions."""
        found = self._returned[name]
        if self._in_pieces:
            finish = self._witnesses[name].finish
            scores = [{tap: x for tap, x in finish(stream, positions).items() if tap in taps} for stream in found]
            found = [self._walked(name, x, stream, positions) for x, stream in zip(scores, found, strict=True)]
        return {tap: np.concatenate([some[tap] for some in found]) for tap in found[0] if tap in self._wanted}
