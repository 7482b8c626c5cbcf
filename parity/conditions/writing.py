"""Conditions of models that write: caches, several new tokens on them, padded prompts, and whole continuations.

Legend: B batch, L length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from parity.conditions.bench import TRUTH, Bench
from parity.conditions.calls import encoded
from parity.conditions.texts import counted, left_padded, most_tokens, words
from parity.given.inputs import Inputs
from parity.measure.metrics import scale_of
from parity.reference.operations import softmax
from parity.run.results import Row
from parity.users.user import User

_PROMPT, _SINGLE, _AT_ONCE = 62, 6, 5  # tokens: single ones on both sides of the 64th
_PADDED, _NEW = 9, 4
_COPIES, _SURE = 256, 6.0  # prompts that draw; deviations that chance does not reach


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


def cross_cache(bench: Bench) -> Iterator[Row]:
    """A prompt and single tokens of a decoder that attends to an encoder's states."""
    ids = words(bench.config, bench.rng, (2, _PADDED))
    yield from _continued(bench, {"input_ids": ids}, [_PADDED - 2, 1, 1], encoded(bench))


def _continued(bench: Bench, inputs: Inputs, lengths: list[int], beside: Inputs | None = None) -> Iterator[Row]:
    """Compare what follows piece after piece; beside: what every piece is given whole."""
    scene, beside = bench.scene(inputs), beside or {}
    (tap,) = bench.own.returned
    truth_BLV = bench.truth(inputs | beside)[tap]
    ends = np.cumsum(lengths)
    pieces = [
        {name: x[:, end - length : end] for name, x in inputs.items()} | beside
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


def sampled(bench: Bench) -> Iterator[Row]:
    """Many copies of one prompt draw a word each: colder, from the best few, and from the likeliest words of a share.

    The temperature makes the scores three times as far apart as their own deviation, so that few words are likely.
    """
    (tap,) = bench.own.returned
    prompt = {"input_ids": words(bench.config, bench.rng, (1, 2))}
    scores_V = bench.truth(prompt)[tap][0, -1]
    order_V = np.argsort(-scores_V, kind="stable")
    reached_V = softmax(scores_V.copy())[order_V].cumsum()
    share = float(reached_V[[0, 1]].mean()) if len(order_V) > 1 else 1.0  # between two sums, so that none is on it
    cold = float(scores_V.std()) / 3 or 1.0
    for how, temperature, known in (
        ({"temperature": cold}, cold, order_V),
        ({"temperature": 3 * cold, "top_k": 3}, 3 * cold, order_V[:3]),
        ({"top_p": share}, 1.0, order_V[:2]),
    ):
        chances_V = np.zeros_like(scores_V)
        chances_V[known] = softmax(scores_V[known] / temperature)
        for user in bench.users:
            yield _drawn(bench, user, prompt, how, chances_V)


def _drawn(bench: Bench, user: User, prompt: Inputs, how: dict[str, Any], chances_V: np.ndarray) -> Row:
    """What one user draws, against the chance of every word."""
    copies, (tap,) = {"input_ids": np.repeat(prompt["input_ids"], _COPIES, axis=0)}, bench.own.returned
    first, again, other = (
        user.generate(copies, 1, do_sample=True, seed=bench.seed + i, **how)[:, -1] for i in (0, 0, 1)
    )
    named = ", ".join(f"{name}={value:g}" for name, value in how.items())
    counts_V = np.bincount(np.concatenate((first, other)), minlength=len(chances_V))
    most_V = _SURE * np.sqrt(2 * _COPIES * chances_V * (1 - chances_V)) + _SURE * (chances_V > 0)
    off_V = np.abs(counts_V - 2 * _COPIES * chances_V)
    scene, pair, worst = bench.scene(prompt), (user.name, TRUTH), int((off_V - most_V).argmax())
    if off_V[worst] > most_V[worst]:
        expected = 2 * _COPIES * chances_V[worst]
        return scene.failed(
            pair, "decoding", tap, f"generate({named}) drew word {worst} {counts_V[worst]} times for {expected:.1f}"
        )
    if (first != again).any():
        return scene.failed(pair, "decoding", tap, f"generate({named}) drew other words from the same seed")
    if chances_V.max() < 0.9 and (first == other).all():
        return scene.failed(pair, "decoding", tap, f"generate({named}) drew the same words from another seed")
    beyond_V = np.maximum(off_V - most_V, 0)  # nothing, here
    return scene.row(pair, "decoding", tap, (beyond_V, np.zeros_like(beyond_V)), scale=1.0)
