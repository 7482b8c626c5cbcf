"""A causal language model token by token, against the reference's pass over all tokens at once.

Legend: B batch, L length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from parity.given.inputs import Inputs, decoded
from parity.run.compare import Scene
from parity.run.results import Row
from parity.witnesses.whole import run_whole
from parity.witnesses.witness import FRAMEWORKS, TRUTHS, pairs

TOKENS = 64  # so many are decoded: each step sees all before it


def compare_decoding(scene: Scene, witnesses: dict[str, Any], inputs: Inputs) -> Iterator[Row]:
    """Yield the rows of the scores [B, L, V]; the first tokens of each text, or of a decoder, without padding.

    Frameworks decode with their caches; a truth, which has none, scores all tokens at once.
    """
    given = decoded(inputs, next(iter(witnesses.values())).config, TOKENS)
    (tap,) = scene.family.heads[scene.head].returned
    scores = {name: witness.decode(given) for name, witness in witnesses.items() if name in FRAMEWORKS}
    truths = {name: witnesses[name] for name in TRUTHS if name in witnesses and witnesses[name].steps}
    at_once = {name: run_whole(witness, given).taps[tap] for name, witness in truths.items()}
    if scene.rounding and at_once:
        rounding = scene.rounding.on(given)
        rounding.at(scene.family.steps(next(iter(witnesses.values())).config)[-1], {tap: next(iter(at_once.values()))})
        scene = replace(scene, rounding=rounding)
    for value, reference in pairs((*truths, *scores)):
        sides = (scores | at_once)[value], (scores | at_once)[reference]
        yield scene.row((value, reference), "decoding", tap, sides)
