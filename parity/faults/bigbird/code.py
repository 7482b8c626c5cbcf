"""Faults in code: each wrap takes a function of the twins and returns the faulty one.

A wrap's docstring is what reports say of the fault.

Legend: B batch, L length, D hidden, N heads, H head size, Q query blocks, S slots of a key list, W block size, r random
blocks, n blocks, V vocabulary, K keys.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from typing import Any

import numpy as np

from parity.faults.inject import Function
from parity.faults.setup import Setup, make_witness
from parity.given.inputs import Inputs


def _like(x: Any, array: np.ndarray) -> Any:
    """A NumPy array for products with ``x``, of either framework."""
    if type(x).__module__.startswith("torch"):
        torch: Any = importlib.import_module("torch")
        return torch.from_numpy(np.ascontiguousarray(array)).to(x.dtype)
    return array.astype(x.dtype)


# Attention: attend(q, k, v, bias, dropout), and the two kinds of it.


def scale_missing(attend: Function) -> Function:
    """Scores are not divided by the square root of the head size."""
    return lambda q, k, v, bias, dropout=None: attend(q * math.sqrt(q.shape[-1]), k, v, bias, dropout)


def scale_twice(attend: Function) -> Function:
    """Scores are divided by the square root of the head size twice."""
    return lambda q, k, v, bias, dropout=None: attend(q / math.sqrt(q.shape[-1]), k, v, bias, dropout)


def scale_after_mask(attend: Function) -> Function:
    """The penalty of the mask is added before scores are scaled, so it is scaled as well."""
    return lambda q, k, v, bias, dropout=None: attend(q, k, v, bias / math.sqrt(q.shape[-1]), dropout)


def half_precision_softmax(attend: Function) -> Function:
    """Attention probabilities are rounded to half precision."""

    def faulty(q: Any, k: Any, v: Any, bias: Any, dropout: Any = None) -> Any:
        weights = attend(q, k, _like(v, np.eye(k.shape[-2])) + v[..., :1] * 0, bias, dropout)
        return _rounded_to_half(weights) @ v

    return faulty


def _rounded_to_half(x: Any) -> Any:
    return x.half().to(x.dtype) if hasattr(x, "half") else x.astype("float16").astype(x.dtype)


def mask_penalty_missing(sparse: Function) -> Function:
    """Keys that are padding are not masked; queries that are padding still give 0."""

    def faulty(q: Any, k: Any, v: Any, mask_BL: Any, lists: Any, block_size: int) -> Any:
        context_BLNH = sparse(q, k, v, mask_BL | True, lists, block_size)
        return context_BLNH * mask_BL[:, :, None, None]

    return faulty


def full_mask_penalty_missing(full: Function) -> Function:
    """Keys that are padding are not masked in full attention."""
    return lambda q, k, v, mask, causal, dropout=None: full(q, k, v, mask | True, causal, dropout)


def padded_queries_kept(sparse: Function) -> Function:
    """The context of padded queries is not set to 0."""

    def faulty(q: Any, k: Any, v: Any, mask_BL: Any, lists: Any, block_size: int) -> Any:
        # One more feature carries the penalty of padded keys, so that the mask need not: it would zero the queries.
        H = q.shape[-1]
        grow = math.sqrt((H + 1) / H)  # the scale will be that of H + 1 features
        dead_BNLH = (~mask_BL)[:, None, :, None] * 1.0 + k[..., :1] * 0
        q = _joined(q * grow, q[..., :1] * 0 + 1)
        k = _joined(k, dead_BNLH * -1e9)
        return sparse(q, k, v, mask_BL | True, lists, block_size)

    return faulty


def _joined(x: Any, y: Any) -> Any:
    """Two arrays side by side along the last axis."""
    module: Any = importlib.import_module("torch" if type(x).__module__.startswith("torch") else "jax.numpy")
    return module.concatenate((x, y), -1)


def _lengthened(x: Any, missing: int, axis: int) -> Any:
    """An array with zeros (a mask: with True) after its end."""
    module: Any = importlib.import_module("torch" if type(x).__module__.startswith("torch") else "jax.numpy")
    piece = x[(slice(None),) * axis + (slice(0, missing),)]
    return module.concatenate((x, piece | True if "bool" in str(x.dtype) else piece * 0), axis)


def partial_block_attended(sparse: Function) -> Function:
    """A text ends inside its last block, and what fills up the block is attended to."""

    def faulty(q: Any, k: Any, v: Any, mask_BL: Any, lists: Any, block_size: int) -> Any:
        L, missing = q.shape[2], -q.shape[2] % block_size
        q, k, v = (_lengthened(x, missing, 2) for x in (q, k, v))
        return sparse(q, k, v, _lengthened(mask_BL, missing, 1), lists, block_size)[:, :L]

    return faulty


def causal_off_by_one(full: Function) -> Function:
    """Every token sees the next one as well."""

    def faulty(q: Any, k: Any, v: Any, mask: Any, causal: bool, dropout: Any = None) -> Any:
        if not causal or mask.ndim == 3:
            return full(q, k, v, mask, causal, dropout)
        L, K = q.shape[2], k.shape[2]
        seen_LK = np.tril(np.ones((L, K)), K - L + 1)
        return full(q, k, v, mask[:, None] & (_like(q, seen_LK) > 0), False, dropout)

    return faulty


def causal_mask_missing(full: Function) -> Function:
    """Every token of a decoder sees all tokens."""
    return lambda q, k, v, mask, causal, dropout=None: full(q, k, v, mask, False, dropout)


# Modules around attention.


def residual_dropped(call: Function) -> Function:
    """The residual is not added: LayerNorm(dense(..)) alone."""
    return lambda self, inner, x, *rest: call(self, inner, x * 0, *rest)


def dropout_left_on(call: Function) -> Function:
    """Dropout is applied as in training."""

    def faulty(self: Any, x: Any, *rest: Any, **named: Any) -> Any:
        rate = self.p if hasattr(self, "p") else self.rate
        kept = np.random.default_rng(0).random(tuple(x.shape)) >= rate
        return x * _like(x, kept / (1 - rate))

    return faulty


def transform_norm_skipped(call: Function) -> Function:
    """The transform of the language model has no LayerNorm."""
    return lambda self, x: self.act(self.dense(x))


def decoder_untied(call: Function) -> Function:
    """The language model's decoder is not the word embedding: its rows are one token off."""
    return lambda self, x, embedding_VD: call(self, x, embedding_VD[np.roll(np.arange(embedding_VD.shape[0]), 1)])


def wrong_token(call: Function) -> Function:
    """The second token stands for the text, not the first."""
    return lambda self, x, *rest: call(self, x[:, 1:], *rest)


def cls_masked(mask_question: Function) -> Function:
    """The penalty of the question hits its first token as well, which stands for "no answer"."""
    return lambda logits, question_BL: logits - question_BL[:, :, None] * 1e6


def question_not_masked(mask_question: Function) -> Function:
    """The question's tokens may be the answer."""
    return lambda logits, question_BL: logits


def cache_off_by_one(complete_inputs: Function) -> Function:
    """With a cache, every token but the first has the position of the token before it."""

    def faulty(*arguments: Any) -> Any:
        inputs = complete_inputs(*arguments)
        if inputs.past is None:
            return inputs
        positions = inputs.position_ids
        return inputs._replace(position_ids=positions - (positions > 0) * 1)

    return faulty


def last_layer_skipped(witness: Any, setup: Setup) -> None:
    """The last layer does not run."""
    right, last = witness.step, witness.config.num_hidden_layers - 1
    witness.step = lambda step, stream: ({}, stream) if step.number == last else right(step, stream)


# What only a call of the whole model does.


def call_skips_a_block(witness: Any, setup: Setup) -> None:
    """The call leaves out one block too many: the last of each text that holds tokens (not its first)."""
    call, call_base = witness.call, witness.call_base
    W, pad = setup.config.block_size, setup.config.pad_token_id

    def shortened(inputs: Inputs) -> Inputs:
        ids = inputs["input_ids"]
        mask, places_L = inputs.get("attention_mask", ids != pad) != 0, np.arange(ids.shape[-1])
        last = np.where(mask, places_L, 0).max(axis=-1, keepdims=True) // W
        return inputs | {"attention_mask": (mask & (places_L < np.maximum(last, 1) * W)).astype(np.int32)}

    witness.call = lambda inputs: call(shortened(inputs))
    witness.call_base = lambda inputs: call_base(shortened(inputs))


def call_runs_other_weights(witness: Any, setup: Setup) -> None:
    """The call runs with weights that are not the loaded ones: the first layer's output kernel is another."""
    name = "encoder.layer.0.output.dense.kernel"
    weights = setup.weights | {name: np.roll(setup.weights[name], 1, axis=0)}
    other = make_witness(witness.name, replace(setup, weights=weights))
    witness.call, witness.call_base = other.call, other.call_base
