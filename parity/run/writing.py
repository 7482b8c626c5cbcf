"""What models write, against what the reference and the original write: greedily, and by the original's beam search.

Ids are equal or wrong. But where the reference's best two candidates are within what their scores may differ by,
rounding decides between them, and nothing behind that place can be compared.

Legend: B batch, T tokens that are written, M beams.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from parity.given.golden import GoldenCase
from parity.given.inputs import DECODER_IDS, Inputs
from parity.measure.metrics import scale_of
from parity.run.compare import Scene
from parity.run.results import Row
from parity.witnesses.whole import run_whole
from parity.witnesses.witness import TRUTHS, pairs
from parity.witnesses.written import Written

_BEAMS, _ALPHA, _TOKENS = 3, 0.8, 16
# A score is off by what one logit may be, and so is the one that it is compared with; log-probabilities by twice that.
_LOGITS, _LOG_PROBS = 2.0, 4.0


class Search(NamedTuple):
    """How something is written: greedily with one beam. alpha: exponent of the length penalty."""

    beams: int
    alpha: float

    @property
    def name(self) -> str:
        """For people."""
        return "greedily" if self.beams == 1 else f"{self.beams} beams, alpha {self.alpha:g}"


def searches_of(golden: GoldenCase | None, vocabulary: int) -> list[Search]:
    """Return the searches that a golden case has; without one, greedy writing and one search."""
    if golden is None:
        return [Search(1, 0.0), *([Search(_BEAMS, _ALPHA)] if vocabulary > 2 * _BEAMS else [])]
    named = (re.fullmatch(r"beam(\d+)_alpha([\d.]+)\.beams", name) for name in sorted(golden.tensors))
    return [Search(1, 0.0), *(Search(int(found[1]), float(found[2])) for found in named if found)]


def tokens_of(config: Any) -> int:
    """Return how many tokens are written."""
    return int(min(_TOKENS, config.decoder_length))


def compare_writing(
    scene: Scene, witnesses: dict[str, Any], inputs: Inputs, golden: GoldenCase | None
) -> Iterator[Row | str]:
    """Yield rows of what is written, and sentences on what cannot be compared."""
    config: Any = next(iter(witnesses.values())).config
    T = inputs[DECODER_IDS].shape[1] if golden and DECODER_IDS in inputs else tokens_of(config)
    able = {name: witness for name, witness in witnesses.items() if hasattr(witness, "write")}
    truth = next((name for name in TRUTHS if name in able and able[name].steps), None)
    for search in searches_of(golden, config.vocab_size):
        written = {name: witness.write(inputs, T, search.beams, search.alpha) for name, witness in able.items()}
        same = [name for name, found in written.items() if truth and _equal(found, written[truth])]
        decided: Any = slice(None)
        if truth and len(same) < len(written):
            decided, why = _decided(scene, able[truth], truth, written[truth], inputs)
            if why:
                yield f"what is written {search.name}, {why}"
        for pair in pairs(tuple(written)):
            part = slice(None) if set(pair) <= set(same) else decided
            yield from _rows(scene, pair, (written[pair[0]], written[pair[1]]), part, T)


def _equal(one: Written, other: Written) -> bool:
    return bool(np.array_equal(one.ids, other.ids))


def _decided(scene: Scene, witness: Any, truth: str, written: Written, inputs: Inputs) -> tuple[Any, str]:
    """Which part of what is written is the same whatever is rounded, as an index; and a sentence on the rest."""
    (tap,) = scene.family.heads[scene.head].returned
    logits = run_whole(witness, inputs).taps[tap]
    frameworks = [name for name in scene.settings if name not in TRUTHS]
    bound = max(scene.tolerance((name, truth), "accumulated", tap).bound for name in frameworks)
    allowed = bound * max(scale_of(logits), float(np.abs(logits).max()))
    margins = np.asarray(written.margins)
    if margins.ndim == 1:
        rows = np.nonzero(margins > _LOG_PROBS * allowed)[0]
        left = len(margins) - len(rows)
        return rows, f"of {left} texts (rounding decides between two candidates)" if left else ""
    close = (margins <= _LOGITS * allowed).any(axis=0)
    if not close.any():
        return slice(None), ""
    first = int(close.argmax())
    return (slice(None), slice(first)), f"beyond token {first} (rounding decides which is best)"


def _rows(scene: Scene, pair: tuple[str, str], sides: tuple[Written, Written], decided: Any, T: int) -> Iterator[Row]:
    """Rows of the ids, and of the scores as shares of a token."""
    greedy, beams, scores = scene.family.heads[scene.head].writes
    value, reference = sides
    tap = greedy if value.scores is None else beams
    if value.ids.shape != reference.ids.shape:
        yield scene.failed(pair, "decoding", tap, f"shapes differ: {value.ids.shape}, {reference.ids.shape}")
        return
    if not value.ids[decided].size:
        return
    yield scene.row(pair, "decoding", tap, (value.ids[decided], reference.ids[decided]))
    if value.scores is not None and reference.scores is not None:
        yield scene.row(pair, "accumulated", scores, (value.scores[decided] / T, reference.scores[decided] / T))
