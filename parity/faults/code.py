"""Faults in code: a function of the twin is replaced for a while, in the same way for both frameworks.

Each wrap takes the twin's function and returns the faulty one; its docstring is what reports say of the fault. Where it
can be written in NumPy, the same fault in the float64 reference says whether it changes anything.

Legend: B batch, L length, D hidden, N heads, H head size, Q query blocks, S slots of a key list, W block size, r random
blocks, n blocks, V vocabulary, K keys.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from bigbird_port.schema.table import Framework
from parity.faults.setup import Setup, make_witness
from parity.given.inputs import Inputs
from parity.reference import attention as reference_attention
from parity.reference import model as reference
from parity.reference.attention import Visibility

Function = Callable[..., Any]
Wrap = Callable[[Function], Function]
Injection = Callable[[Framework], AbstractContextManager[None]]
InReference = Callable[[], AbstractContextManager[Any]]
ATTEND = "attention.plain.attend"
_CALLED = {"torch": "forward", "flax": "__call__"}
_FLAX_CLASSES = {"BigBirdModel": "FlaxBigBirdModule"}  # the others are called alike


def in_twin(path: str, wrap: Wrap) -> Injection:
    """Return what replaces ``path`` of the twin's package: "room.module.function" or
    "room.module.Class.method".

    The method "call" is forward, or __call__. Flax compiles anew while it lasts.
    """

    @contextmanager
    def inject(framework: Framework) -> Iterator[None]:
        room, module, *names = path.split(".")
        owner: Any = importlib.import_module(f"models_{framework}.{room}.{module}")
        for name in names[:-1]:
            owner = getattr(owner, _FLAX_CLASSES.get(name, name) if framework == "flax" else name)
        name, change = _CALLED[framework] if names[-1] == "call" else names[-1], wrap
        if (framework, path) == ("flax", ATTEND):
            name, change = "attend_in_part", _in_part(wrap)
        with mock.patch.object(owner, name, change(getattr(owner, name))), _compiled_anew(framework, path):
            yield

    return inject


def _in_part(wrap: Wrap) -> Wrap:
    """What is done to attend, done to what Flax's attend and its block-sparse attention call: a part and its weight."""

    def changed(attend_in_part: Function) -> Function:
        def faulty(q: Any, k: Any, v: Any, bias: Any) -> tuple[Any, Any]:
            logs = []

            def attend(q: Any, k: Any, v: Any, bias: Any, dropout: Any = None) -> Any:
                context, log = attend_in_part(q, k, v, bias)
                logs.append(log)
                return context

            return wrap(attend)(q, k, v, bias), logs[-1]

        return faulty

    return changed


# What of parity/witnesses/with_flax.py is compiled from a module of the twin, whose own layers are compiled anew
# always. Key lists are no part of it, they are passed to it; the embeddings' Dropout is everybody's.
_COMPILED_FROM = {
    "bigbird.encoder.layer_pattern": (),
    "attention.plain": ("_compiled_layer",),
    "bigbird.layer": ("_compiled_layer",),
    "bigbird.embeddings": ("_compiled_layer", "_compiled"),
    "bigbird.model": ("_compiled",),
    "bigbird.tasks": ("_compiled",),
    "bigbird.heads": ("_compiled",),
}


@contextmanager
def _compiled_anew(framework: Framework, path: str) -> Iterator[None]:
    """Flax's compiled functions hold what they were compiled from: others for as long as the fault lasts."""
    if framework == "torch":
        yield
        return
    module: Any = importlib.import_module("parity.witnesses.with_flax")
    names = _COMPILED_FROM[path if path in _COMPILED_FROM else ".".join(path.split(".")[:2])]
    fresh = {name: functools.lru_cache(maxsize=64)(getattr(module, name).__wrapped__) for name in names}
    encoder: Any = importlib.import_module("models_flax.bigbird.encoder")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(encoder, "_CompiledLayer", encoder._compiled_layer()))
        for name, function in fresh.items():
            stack.enter_context(mock.patch.object(module, name, function))
        yield


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


# The same in the reference.


def reference_scale(power: float) -> InReference:
    """Multiply the reference's queries by head size ** power."""
    right = reference_attention._probabilities
    return lambda: mock.patch.object(
        reference_attention, "_probabilities", lambda q, k, bias: right(q * q.shape[-1] ** power, k, bias)
    )


def reference_scaled_bias() -> AbstractContextManager[Any]:
    """Divide the reference's penalty by the square root of the head size, but not the logarithm of a block's count."""
    right = reference_attention._probabilities

    def faulty(q: np.ndarray, k: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return right(q, k, np.where(bias < -1e9, bias / math.sqrt(q.shape[-1]), bias))

    return mock.patch.object(reference_attention, "_probabilities", faulty)


def reference_half_softmax() -> AbstractContextManager[Any]:
    """Round the reference's probabilities to half precision. Those of a block that is listed twice are added first."""
    right = reference_attention._probabilities
    return mock.patch.object(
        reference_attention,
        "_probabilities",
        lambda q, k, bias: right(q, k, bias).astype(np.float16).astype(np.float64),
    )


class _ZeroesBy(Visibility):
    """Sees by its own mask, and zeroes queries by another (None: none)."""

    def __init__(self, seen: Visibility, mask: np.ndarray, zeroed: np.ndarray | None) -> None:
        super().__init__(mask, seen.counts, seen.block_size, seen.causal)
        object.__setattr__(self, "zeroed", np.ones(mask.shape[:2]) if zeroed is None else zeroed.astype(np.float64))

    def live_queries(self) -> np.ndarray:
        factor: np.ndarray = vars(self)["zeroed"]
        return factor


def seen_as(change: Callable[[Visibility], Visibility]) -> InReference:
    """Change which keys the reference's queries see."""
    right = reference.Reference.visibility
    return lambda: mock.patch.object(
        reference.Reference, "visibility", lambda self, i, stream: change(right(self, i, stream))
    )


def without_penalty(seen: Visibility) -> Visibility:
    """Mask no key. Padded queries of block-sparse attention still give 0."""
    if seen.counts is None:
        return replace(seen, mask=seen.mask | True)
    return _ZeroesBy(seen, seen.mask | True, seen.mask)


def without_sparse_penalty(seen: Visibility) -> Visibility:
    """Mask no key of block-sparse attention."""
    return seen if seen.counts is None else without_penalty(seen)


def without_full_penalty(seen: Visibility) -> Visibility:
    """Mask no key of full attention."""
    return without_penalty(seen) if seen.counts is None else seen


def with_padded_queries(seen: Visibility) -> Visibility:
    """Let padded queries attend."""
    return _ZeroesBy(seen, seen.mask, None) if seen.counts is not None else seen


def looking_ahead(places: int) -> Callable[[Visibility], Visibility]:
    """Let causal attention see so many of the tokens that follow."""

    def change(seen: Visibility) -> Visibility:
        if not seen.causal or seen.mask.ndim == 3:
            return seen
        L = seen.mask.shape[-1]
        mask_BLL = seen.mask[:, None] & np.tril(np.ones((L, L), bool), min(places, L))
        return replace(seen, mask=mask_BLL, causal=False)

    return change


def reference_partial_block() -> AbstractContextManager[Any]:
    """Fill up the last block with zeros that count as keys."""
    right = reference_attention.attend

    def faulty(q: np.ndarray, k: np.ndarray, v: np.ndarray, seen: Visibility) -> np.ndarray:
        L, missing = q.shape[2], -q.shape[2] % seen.block_size
        if seen.counts is None or not missing:
            return right(q, k, v, seen)
        q, k, v = (np.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) for x in (q, k, v))
        mask = np.pad(seen.mask, ((0, 0), (0, missing)), constant_values=True)
        return right(q, k, v, replace(seen, mask=mask))[:, :L]

    return mock.patch.object(reference, "attend", faulty)


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
    right, last = witness.layer, witness.config.num_hidden_layers - 1
    witness.layer = lambda i, stream: ({}, stream) if i == last else right(i, stream)


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
