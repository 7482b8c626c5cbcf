"""Conditions of --thorough: paths that this machine would not choose, other types, and training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.conditions.bench import Bench
from parity.conditions.calls import few_tokens, one_call, two_texts
from parity.conditions.texts import mixed, seven, short_length
from parity.reference.dropout import ALL, training
from parity.run.results import Row
from parity.witnesses.witness import Dtype

Run = Callable[[Bench], Iterator[Row]]


def in_a_way(name: str, run: Run) -> Run:
    """Return a condition's function that lets each framework that has a way run in it, and leaves out the others."""

    def forced(bench: Bench) -> Iterator[Row]:
        for user in bench.users:
            if name in user.ways:
                own = bench.with_users([user])
                with user.ways[name](user):
                    yield from list(run(own))

    return forced


def full_texts(bench: Bench) -> Iterator[Row]:
    """Two texts, of which the second ends within a block."""
    L = short_length(bench.config)
    yield from one_call(bench, bench.own_inputs(mixed(bench.config, bench.rng, [L, max(2, L // 2)], L)))


def all_seen(bench: Bench) -> Iterator[Row]:
    """Two texts at the longest length without a pattern: the original's, then transformers'."""
    yield from full_texts(bench)
    config = bench.config
    theirs = (5 + 2 * config.num_random_blocks) * config.block_size
    if theirs <= config.max_position_embeddings:
        yield from full_texts(bench.under(random_blocks="transformers", max_encoder_length=theirs))


def many_texts(bench: Bench) -> Iterator[Row]:
    """Seven texts of mixed lengths."""
    yield from one_call(bench, bench.own_inputs(seven(bench.config, bench.rng)))


def in_type(dtype: Dtype) -> Run:
    """Return a condition's function with both frameworks in another type: whole calls, and layer by layer."""

    def narrow(bench: Bench) -> Iterator[Row]:
        own = bench.in_type(dtype)
        yield from two_texts(own)
        yield from few_tokens(own)

    return narrow


def judged_as(dtype: Dtype, run: Run) -> Run:
    """Return a condition's function whose float32 models are judged by what another type may be off."""
    return lambda bench: run(bench.judged_as(dtype))


def without_dropout(config: BigBirdConfig) -> dict[str, Any]:
    """Return the overrides under which training computes what evaluation does."""
    return {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}


def everything_dropped(bench: Bench) -> Iterator[Row]:
    """Training with one probability of dropout at a time so near to one that nothing is kept."""
    for field in without_dropout(bench.config):
        with training():
            yield from list(in_a_way("training", full_texts)(bench.under(**{field: ALL})))


def nothing_else_dropped(config: BigBirdConfig) -> dict[str, Any]:
    """Return the overrides to no dropout, and to full attention, because lists of blocks have none."""
    return without_dropout(config) | {"attention_type": "original_full"}


def why_no_onednn(config: BigBirdConfig) -> str:
    """Say why a machine has no oneDNN; empty where it has."""
    from models_torch.attention import onednn

    return "" if onednn.available() else "this torch was built without oneDNN"
