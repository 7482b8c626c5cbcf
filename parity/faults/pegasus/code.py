"""Faults in BigBird-Pegasus' code and in its witnesses; a docstring is what reports say of the fault.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden, V vocabulary.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from parity.faults.inject import Function
from parity.faults.setup import Setup, Weights, make_witness
from parity.given.inputs import DECODER_IDS, Inputs

_POSITIONS = "embeddings.position_embeddings.embedding"
PENALTY, UNFINISHED = "((5 + (i + 1)) / 6) ** alpha", "where(ended_BM, scores_BM, sums_BM)"


# Weights, configuration and inputs.


def positions_offset(weights: Weights, config: Any) -> Weights:
    """Positions are counted from 2, as in transformers' tables with an offset."""
    return weights | {_POSITIONS: np.roll(weights[_POSITIONS], -2, axis=0)}


def cross_kernel_transposed(weights: Weights, config: Any) -> Weights:
    """The square kernel of the last layer's cross-attention queries is transposed."""
    name = f"decoder.layer.{config.decoder_layers - 1}.attention.encdec.query.kernel"
    return weights | {name: weights[name].T.copy()}


def large_epsilon(setup: Setup) -> dict[str, Any]:
    """LayerNorm adds 1e-5 to the variance, not the original's 1e-12."""
    return {"layer_norm_eps": 1e-5}


def scale_missing(setup: Setup) -> dict[str, Any]:
    """Word embeddings are not multiplied by the root of the hidden size."""
    return {"scale_embedding": False}


def start_id_zero(setup: Setup) -> dict[str, Any]:
    """The decoder starts with the padding's id, not with 2."""
    return {"decoder_start_token_id": setup.config.pad_token_id}


def smoothing_missing(setup: Setup) -> dict[str, Any]:
    """The loss has no label smoothing."""
    return {"label_smoothing": 0.0}


def labels_shifted(inputs: Inputs, setup: Setup) -> Inputs:
    """The decoder reads plainly shifted labels: an end of the sequence stands behind every summary that is padded."""
    if DECODER_IDS not in inputs:
        return inputs
    ids, config = inputs[DECODER_IDS].copy(), setup.config
    count_B = (ids != config.pad_token_id).sum(axis=1)
    rows = np.nonzero(count_B < ids.shape[1])[0]
    ids[rows, count_B[rows]] = config.eos_token_id
    return inputs | {DECODER_IDS: ids}


# Witnesses: what stages do.


def _at(name: str, witness: Any, change: Callable[[Any, Any, Any], Any]) -> None:
    """Have ``change(step, stream, right)`` in place of a witness's stage."""
    right = witness.step
    witness.step = lambda step, stream: change(step, stream, right) if step.name == name else right(step, stream)


def _without_norm(side: str, witness: Any) -> None:
    def change(step: Any, stream: Any, right: Any) -> Any:
        L = witness.inputs_length
        x = witness.hidden(stream)[:, 0 if side == "encoder" else L :]
        return {f"{side}.output": x}, witness.inject(stream, x)

    start = witness.start

    def started(inputs: Inputs) -> Any:
        witness.inputs_length = inputs["input_ids"].shape[-1] if witness.config.is_encoder_decoder else 0
        return start(inputs)

    witness.start = started
    _at(f"{side}.output", witness, change)


def encoder_norm_missing(witness: Any, setup: Setup) -> None:
    """The encoder's last LayerNorm is left out."""
    _without_norm("encoder", witness)


def decoder_norm_missing(witness: Any, setup: Setup) -> None:
    """The decoder's last LayerNorm is left out."""
    _without_norm("decoder", witness)


def _twice(step: Any, stream: Any, right: Any) -> Any:
    return right(step, right(step, stream)[1])


def encoder_norm_twice(witness: Any, setup: Setup) -> None:
    """The encoder's last LayerNorm is applied twice."""
    _at("encoder.output", witness, _twice)


def decoder_norm_twice(witness: Any, setup: Setup) -> None:
    """The decoder's last LayerNorm is applied twice."""
    _at("decoder.output", witness, _twice)


def cross_keys_normed(witness: Any, setup: Setup) -> None:
    """Keys and values of cross-attention come from the encoder's output, normalised once more."""
    steps = {step.name: step for step in setup.config.family.steps(setup.config)}

    def change(step: Any, stream: Any, right: Any) -> Any:
        return right(step, right(steps["encoder.output"], stream)[1])

    _at("decoder.embeddings", witness, change)


def copies_in_place_of_sharing(witness: Any, setup: Setup) -> None:
    """The decoder of a coupled model has copies of the encoder's weights, whose gradients are not added."""
    if not setup.config.couple_encoder_decoder:
        return
    weights = dict(setup.weights)
    shared = [name for name in weights if name.startswith("encoder.")]
    weights |= {name.replace("encoder.", "decoder.", 1): weights[name] for name in shared}
    config = setup.config.replace(couple_encoder_decoder=False)
    other = make_witness(witness.name, replace(setup, config=config, weights=weights))

    def backward(inputs: Inputs, labels: Inputs) -> Any:
        found = other.backward(inputs, labels)
        return replace(found, weights={name: x for name, x in found.weights.items() if name in setup.weights})

    witness.backward = backward


# Code.


def scaled_twice(embedded: Function) -> Function:
    """Word embeddings are multiplied by the root of the hidden size twice."""
    return lambda config, words, positions: embedded(config, words * math.sqrt(config.d_model), positions)


def output_scaled(score: Function) -> Function:
    """The output layer's word embeddings are multiplied by the root of the hidden size, as the input's are."""

    def faulty(self: Any, *arguments: Any, **named: Any) -> Any:
        found = score(self, *arguments, **named)
        return {name: x * math.sqrt(self.config.d_model) for name, x in found.items()}

    return faulty


def numerator_masked(summary_loss: Function) -> Function:
    """Padding is left out of the loss's numerator."""

    def faulty(logits: Any, labels: Any, label_smoothing: float, loss_style: str) -> Any:
        # scores of padding are made equal, so that what padding adds to the loss is known
        real, V = labels != 0, logits.shape[-1]
        rest = label_smoothing / (V - 1)
        entropy = -(1 - label_smoothing) * math.log(1 - label_smoothing) - label_smoothing * math.log(rest + 1e-20)
        whole = summary_loss(logits * real[..., None], labels, label_smoothing, loss_style)
        return whole - (labels == 0).sum() * (math.log(V) - entropy) / real.sum()

    return faulty


def cross_mask_dropped(call: Function) -> Function:
    """Cross-attention attends to padding."""

    def faulty(self: Any, x: Any, keys: Any, mask: Any, causal: bool, *rest: Any) -> Any:
        return call(self, x, keys, mask if causal else mask | True, causal, *rest)

    return faulty


def slot_off_by_one(written: Function) -> Function:
    """Keys and values go into the slot before their own."""

    def faulty(self: Any, k: Any, v: Any) -> Any:
        before = self.filled - (self.filled > 0) * 1
        return written(self._replace(filled=before), k, v)._replace(filled=self.filled + k.shape[2])

    return faulty


def rewritten(old: str, new: str, said: str) -> Callable[[Function], Function]:
    """Return a wrap that puts other text into a function's source; raises ValueError where the text is not there."""

    def wrap(function: Any) -> Function:
        own = inspect.unwrap(function)
        text = inspect.getsource(own)
        if old not in text:
            raise ValueError(f"{own.__module__}.{own.__name__}: there is no {old!r} to change: adapt the fault")
        found: dict[str, Any] = {}
        exec(compile(text.replace(old, new), f"<{own.__name__}>", "exec"), own.__globals__, found)  # its own source
        faulty: Function = found[own.__name__]
        return faulty

    wrap.__doc__ = said
    return wrap


other_penalty = rewritten(PENALTY, "(i + 1) ** alpha", "The length penalty is transformers': length ** alpha.")
unfinished_normalised = rewritten(
    UNFINISHED,
    "where(ended_BM, scores_BM, sums_BM / ((5 + T) / 6) ** alpha)",
    "Beams that have no end are normalised by their length as well.",
)
