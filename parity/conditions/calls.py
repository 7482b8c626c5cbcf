"""Conditions that are one call each.

Legend: B batch, L length, N heads, K keys, H head size, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from parity.conditions.bench import Bench
from parity.conditions.texts import masked, mixed, seven, short_length, words
from parity.given.inputs import Inputs
from parity.run.results import Row
from parity.witnesses.witness import Taps


def mixed_lengths(bench: Bench) -> Iterator[Row]:
    """Seven texts, ids alone, and all hidden states returned."""
    inputs = bench.own_inputs(seven(bench.config, bench.rng))
    truth = bench.truth(inputs)
    wanted = {name: truth[name] for name in bench.hidden_taps()} | bench.returned(truth)
    for user in bench.users:
        found = user.call(inputs, output_hidden_states=True)
        yield from bench.rows(user.name, inputs, _with_hidden(bench, found), wanted)


def given_arrays(bench: Bench) -> Iterator[Row]:
    """Seven texts with a mask, types and positions; the answer is a plain tuple."""
    yield from one_call(bench, bench.own_inputs(masked(bench.config, bench.rng)), return_dict=False)


def alone(bench: Bench) -> Iterator[Row]:
    """One text of nearly all tokens of the pattern."""
    length = bench.config.max_encoder_length - bench.config.block_size // 2
    yield from one_call(bench, bench.own_inputs(mixed(bench.config, bench.rng, [length], length)))


def two_texts(bench: Bench) -> Iterator[Row]:
    """Two texts, of which the second has half of the pattern."""
    length, W = bench.config.max_encoder_length - bench.config.block_size // 2, bench.config.block_size
    yield from one_call(bench, bench.own_inputs(mixed(bench.config, bench.rng, [length, length // 2 + W // 3], length)))


def few_tokens(bench: Bench) -> Iterator[Row]:
    """Four texts of which one token in ten is seen, layer by layer, each on the reference's input.

    A block that is listed twice is then a large part of what a query sees, more than half precision may be off.
    """
    L = bench.config.max_encoder_length - bench.config.block_size // 2
    ids = words(bench.config, bench.rng, (4, L))
    mask = (bench.rng.random(ids.shape) < 0.1).astype(np.int32)
    mask[:, 0] = 1
    inputs = bench.own_inputs({"input_ids": ids, "attention_mask": mask})
    streams = {user.name: user.witness.start(inputs)[1] for user in bench.users}
    stream = bench.reference.start(inputs)[1]
    for step in bench.family.steps(bench.config)[1:-1]:
        fed = bench.reference.hidden(stream)
        truth, stream = bench.reference.step(step, stream)
        for user in bench.users:
            found = user.witness.step(step, user.witness.inject(streams[user.name], fed))[0]
            yield from bench.rows(user.name, inputs, found, truth, "local")


def embeddings_given(bench: Bench) -> Iterator[Row]:
    """Two texts as the embeddings of their words, where a framework takes these."""
    inputs = bench.own_inputs(masked(bench.config, bench.rng))
    inputs = {name: x[..., :2, :] if x.ndim == 3 else x[:2] for name, x in inputs.items()}
    truth = bench.returned(bench.truth(inputs))
    table = bench.reference.model.weights[bench.family.anchor]
    arrays = {name: x for name, x in inputs.items() if name != "input_ids"}
    arrays["inputs_embeds"] = table[inputs["input_ids"]].astype(np.float32)
    for user in (user for user in bench.users if user.takes_embeddings):
        yield from bench.rows(user.name, inputs, user.call(arrays), truth)


def attentions(bench: Bench) -> Iterator[Row]:
    """Two texts, some heads switched down, and the attention probabilities and all taps returned."""
    L, W = short_length(bench.config), bench.config.block_size
    inputs = bench.own_inputs(mixed(bench.config, bench.rng, [L, max(1, L - 2 * W - 1)], L))
    yield from _with_attentions(bench, inputs | {"head_mask": _head_mask(bench)})


def queries_and_keys(bench: Bench) -> Iterator[Row]:
    """Two short texts whose mask says which query sees which key."""
    L = min(21, short_length(bench.config))
    inputs = mixed(bench.config, bench.rng, [L, L], L)
    mask = (bench.rng.random((2, L, L)) < 0.5).astype(np.int32)
    mask[:, np.arange(L), np.arange(L)] = 1
    yield from _with_attentions(bench, bench.own_inputs(inputs | {"attention_mask": mask}))


def cross_attention(bench: Bench) -> Iterator[Row]:
    """A decoder that attends to an encoder's states, some of which are padding."""
    L = min(13, short_length(bench.config))
    yield from one_call(bench, mixed(bench.config, bench.rng, [L, max(1, L - 4)], L) | encoded(bench))


def encoded(bench: Bench) -> Inputs:
    """Return an encoder's states for two texts, and their mask."""
    K, D = 9, bench.config.hidden_size
    mask = np.ones((2, K), np.int32)
    mask[1, : K // 2] = 0
    states = bench.rng.standard_normal((2, K, D)).astype(np.float32)
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def one_call(bench: Bench, inputs: Inputs, **asked: Any) -> Iterator[Row]:
    """Call every framework, and compare what it returns."""
    truth = bench.returned(bench.truth(inputs))
    for user in bench.users:
        yield from bench.rows(user.name, inputs, user.call(inputs, **asked), truth)


def _with_attentions(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Attention probabilities, compared by what the reference's values are under them: the context."""
    truth = bench.truth(inputs)
    kept = {name: x for name, x in inputs.items() if name != "head_mask"}
    for user in bench.users:
        found = user.call(inputs, output_attentions=True, output_taps=True)
        weighed = {}
        for i, name in enumerate(_contexts(bench)):
            if (probabilities := found.get(f"attentions.{i}")) is not None:
                weighed[name] = np.einsum("bnlk,bnkh->blnh", probabilities, truth[_values(bench, i)])
        yield from bench.rows(user.name, kept, found, truth)
        yield from bench.rows(user.name, kept, weighed, {name: truth[name] for name in _contexts(bench)})


def _contexts(bench: Bench) -> list[str]:
    """The tap of every layer that attention computes, which is compared by attention heads."""
    (tap,) = (tap for tap in bench.family.layer if tap.by_head)
    return [tap.name.format(i=i) for i in range(bench.config.num_hidden_layers)]


def _values(bench: Bench, layer: int) -> str:
    """The tap that attention averages: the last of what it is computed from."""
    (tap,) = (tap for tap in bench.family.layer if tap.by_head)
    return tap.sources[-1].format(i=layer)


def _head_mask(bench: Bench) -> np.ndarray:
    layers, heads = bench.config.num_hidden_layers, bench.config.num_attention_heads
    factors: np.ndarray = bench.rng.uniform(0.25, 1, (layers, heads)).astype(np.float32)
    return factors


def _with_hidden(bench: Bench, found: Taps) -> Taps:
    """A call's hidden states under the names of their taps."""
    names = {f"hidden_states.{i}": tap for i, tap in enumerate(bench.hidden_taps())}
    return {names.get(name, name): x for name, x in found.items()}
