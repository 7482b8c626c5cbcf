"""Conditions with labels: the losses that a call returns, and the gradients through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity.conditions.bench import TRUTH, Bench
from parity.conditions.texts import mixed, short_length
from parity.measure.gradient_scale import steepness
from parity.measure.labels import IGNORED, labellings
from parity.measure.losses import PLACES, make_labels
from parity.run.compare import compare
from parity.run.gradients import gradient_rows, too_large
from parity.run.results import Row

LISTS = 17  # query blocks with a list, more than run at once


def returned_losses(bench: Bench) -> Iterator[Row]:
    """Every kind of labels that the head takes, three texts each."""
    L = short_length(bench.config)
    inputs = bench.own_inputs(mixed(bench.config, bench.rng, [L] * 3, L))  # scores of padding are nobody's business
    for kind in labellings(bench.config, bench.head, inputs, bench.seed):
        own = bench.under(**kind.overrides) if kind.overrides else bench
        taps = own.truth(inputs)
        scores, scene = own.returned(taps), own.scene(inputs)
        truth = {"loss": np.array(own.reference.loss(taps, kind.labels))}
        for user in own.users:
            value = {"loss": np.array(user.loss(inputs, kind.labels, scores))}
            yield from compare(scene, (user.name, TRUTH), "loss", kind.name, (value, truth))


def packed_gradients(bench: Bench) -> Iterator[Row]:
    """Two texts with more lists than run at once, of which the second is shorter: the call packs them.

    No token of padding has a label. Where a label is a place in the text, all places have scores: nothing is padded.
    """
    L = short_length(bench.config, LISTS + 2)
    places = bench.own.labels == PLACES
    inputs = bench.own_inputs(mixed(bench.config, bench.rng, [L, L if places else max(2, L // 2)], L))
    if why := too_large(bench.config, inputs):
        raise ValueError(why)
    ids, pad = inputs["input_ids"], bench.config.pad_token_id
    labels = {
        name: np.where(ids == pad, IGNORED, x) if x.shape == ids.shape else x
        for name, x in make_labels(bench.config, bench.head, inputs, bench.seed).items()
    }
    truth = bench.reference.backward(inputs, labels)
    scene = bench.scene(inputs)
    steep = replace(scene, steepness=steepness(truth.scores))
    for user in bench.users:
        found = user.gradients(inputs, labels)
        losses = {"loss": np.array(found.loss)}, {"loss": np.array(truth.loss)}
        yield from compare(scene, (user.name, TRUTH), "loss", "loss", losses)
        terms = truth.weights | truth.taps
        yield from gradient_rows(steep, (user.name, TRUTH), found.weights, truth.weights, terms)
