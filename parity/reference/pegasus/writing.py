"""What the reference of BigBird-Pegasus writes: greedily, and by the original's beam search, in float64.

The decoder reads all that is written so far, each time anew: it has no cache.

Legend: B batch, L length of the texts, T tokens that are written, M beams, V vocabulary.

Sources: bigbird/core/{decoder,beam_search}.py of google-research/bigbird.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from parity.given.golden import log_softmax
from parity.given.inputs import Inputs
from parity.reference.pegasus.inputs import Stream
from parity.witnesses.written import Written

LOWEST = float(np.finfo(np.float32).min)  # the original's minus infinity


class _Decoder:
    """The decoder behind an encoder that has run."""

    def __init__(self, reference: Any, inputs: Inputs) -> None:
        self.reference, config = reference, reference.config
        self.steps = config.family.steps(config)
        self.first = next(i for i, step in enumerate(self.steps) if step.stage.name.startswith("decoder."))
        _, stream = reference.start(inputs)
        for step in self.steps[1 : self.first]:
            _, stream = reference.step(step, stream)
        self.stream: Stream = stream

    def scores(self, texts: np.ndarray, written: np.ndarray) -> np.ndarray:
        """Return the logits [rows, V] behind what was written; texts: which text each row is of."""
        start = np.full((len(written), 1), self.reference.config.decoder_start_token_id)
        given = self.stream.given
        mask = None if given.mask is None else given.mask[texts]
        read = np.concatenate((start, written), axis=1)
        given = replace(given, input_ids=given.input_ids[texts], decoder_ids=read, mask=mask)
        stream = replace(self.stream, x=self.stream.x[texts], given=given)
        for step in self.steps[self.first : -1]:
            _, stream = self.reference.step(step, stream)
        (scores,) = self.reference.finish(replace(stream, x=stream.x[:, -1:])).values()
        found: np.ndarray = scores[:, 0]
        return found


def greedy(reference: Any, inputs: Inputs, T: int) -> Written:
    """Write the best token each time, until every text has an end; a text that has one goes on until then.

    margins [B, T]: by how much the best token leads.
    """
    decoder, B = _Decoder(reference, inputs), len(inputs["input_ids"])
    ids, margins = np.zeros((B, T), np.int64), np.full((B, T), np.inf)
    for i in range(T):
        scores = decoder.scores(np.arange(B), ids[:, :i])
        ids[:, i] = scores.argmax(axis=1)
        best = -np.partition(-scores, 1, axis=1)[:, :2] if scores.shape[1] > 1 else np.array([[np.inf, 0.0]])
        margins[:, i] = best[:, 0] - best[:, 1]
        if (ids == reference.config.eos_token_id).any(axis=1).all():
            break
    return Written(ids, None, margins)


def search(reference: Any, inputs: Inputs, T: int, M: int, alpha: float) -> Written:
    """Search with M beams, always T steps.

    What has no end after all is in its slot with the plain sum of its log-probabilities. margins [B]: the least
    difference, per token written, between two candidates whose order mattered.
    """
    decoder, B, eos = _Decoder(reference, inputs), len(inputs["input_ids"]), reference.config.eos_token_id
    alive, done = np.zeros((2, B, M, T), np.int64)
    sums, scores = np.full((2, B, M), LOWEST)
    sums[:, 0] = 0
    rows, margins = np.arange(B)[:, None], np.full(B, np.inf)
    for i in range(T):
        logits = decoder.scores(np.repeat(np.arange(B), M), alive[:, :, :i].reshape(B * M, i))
        V = logits.shape[-1]
        total = (log_softmax(logits).reshape(B, M, V) + sums[..., None]).reshape(B, M * V)
        found, at = _best(total, 2 * M)
        margins = np.minimum(margins, _least_gap(_best(total, 2 * M + 1)[0]) / (i + 1))
        candidates = alive[rows, at // V]
        candidates[:, :, i] = at % V
        ended = (candidates == eos).any(axis=-1)
        sums, kept = _best(np.where(ended, LOWEST, found), M)
        alive = candidates[rows, kept]
        own = np.where(ended, found / penalty(i + 1, alpha), LOWEST)
        joined = np.concatenate((scores, own), axis=1)
        margins = np.minimum(margins, _least_gap(_best(joined, M + 1)[0]) / (i + 1))
        scores, kept = _best(joined, M)
        done = np.concatenate((done, candidates), axis=1)[rows, kept]
    ended = (done == eos).any(axis=-1)
    return Written(
        np.where(ended[..., None], done, alive), np.where(ended, scores, unfinished(sums, T, alpha)), margins
    )


def penalty(length: int, alpha: float) -> float:
    """Return what the score of so many tokens, the end among them, is divided by."""
    return float(((5 + length) / 6) ** alpha)


def unfinished(sums: np.ndarray, T: int, alpha: float) -> np.ndarray:
    """Return the scores of beams without an end after T tokens: the plain sums."""
    return sums


def _best(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best scores of each row, descending, and where they are; of equal ones the first come first."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, order, axis=1), order


def _least_gap(scores: np.ndarray) -> np.ndarray:
    """The least difference of neighbours, in each row of descending scores, of those that are possible."""
    gaps = np.where(scores[:, 1:] > LOWEST / 2, scores[:, :-1] - scores[:, 1:], np.inf)
    found: np.ndarray = gaps.min(axis=1)
    return found
