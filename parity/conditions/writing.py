"""Conditions of models that write: caches, several new tokens on them, padded prompts, and whole continuations.

Legend: B batch, L length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.conditions.bench import TRUTH, Bench
from parity.conditions.texts import counted, left_padded, most_tokens, words
from parity.given.inputs import Inputs
from parity.measure.metrics import scale_of
from parity.run.results import Row

_PROMPT, _SINGLE, _AT_ONCE = 62, 6, 5  # tokens: single ones on both sides of the 64th
_PADDED, _NEW = 9, 4


def long_cache(bench: Bench) -> Iterator[Row]:
    """A prompt, single tokens beyond the 64th, and several at once."""
    pieces = [_PROMPT, *[1] * _SINGLE, _AT_ONCE]
    ids = words(bench.config, bench.rng, (2, min(sum(pieces), most_tokens(bench.config))))
    yield from _continued(bench, {"input_ids": ids}, pieces)


def padded_cache(bench: Bench) -> Iterator[Row]:
    """A prompt that is padded in front, then single tokens; the mask and positions are given."""
    prompt = left_padded(bench.config, bench.rng, _PADDED)
    new = words(bench.config, bench.rng, (2, 3))
    mask = np.concatenate((prompt["attention_mask"], np.ones_like(new)), axis=1)
    ids = np.concatenate((prompt["input_ids"], new), axis=1)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": counted(mask)}
    yield from _continued(bench, inputs, [_PADDED, 1, 1, 1])


def _continued(bench: Bench, inputs: Inputs, lengths: list[int]) -> Iterator[Row]:
    scene = bench.scene(inputs)
    (tap,) = bench.own.returned
    truth_BLV = bench.truth(inputs)[tap]
    ends = np.cumsum(lengths)
    pieces = [
        {name: x[:, end - length : end] for name, x in inputs.items()}
        for end, length in zip(ends, lengths, strict=True)
        if end - length < inputs["input_ids"].shape[1]
    ]
    for user in bench.users:
        sides = user.continued(pieces)[scene.real_BL], truth_BLV[scene.real_BL]
        yield scene.row((user.name, TRUTH), "decoding", tap, sides)


def generated(bench: Bench) -> Iterator[Row]:
    """Two prompts, the first padded in front, continued greedily.

    What the reference would score best may tie, so ids are not compared: each chosen word must score as the best does.
    """
    prompt = left_padded(bench.config, bench.rng, _PADDED)
    (tap,) = bench.own.returned
    for user in bench.users:
        ids = user.generate(prompt, _NEW).astype(np.int32)
        mask = np.concatenate((prompt["attention_mask"], np.ones((2, _NEW), np.int32)), axis=1)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": counted(mask)}
        pair, kept = (user.name, TRUTH), prompt["input_ids"]
        if ids.shape != mask.shape or not (ids[:, :_PADDED] == kept).all():
            yield bench.scene(prompt).failed(
                pair, "decoding", tap, f"generate returned {list(ids.shape)}, or lost its prompt"
            )
            continue
        scores_BLV = bench.truth(inputs)[tap][:, _PADDED - 1 : -1]
        chosen_BL = np.take_along_axis(scores_BLV, ids[:, _PADDED:, None], axis=2)
        best_BL = scores_BLV.max(axis=2, keepdims=True)
        yield bench.scene(inputs).row(pair, "decoding", tap, (chosen_BL, best_BL), scale=scale_of(scores_BLV))
