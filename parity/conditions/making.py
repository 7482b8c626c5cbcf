"""Models that are made rather than loaded: from a configuration, and with more positions than before.

Legend: P positions before, L positions after, D hidden.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from parity.conditions.bench import TRUTH, Bench
from parity.conditions.texts import mixed, short_length
from parity.given.inputs import Inputs
from parity.reference.model import Reference
from parity.run.results import Row
from parity.users.user import User
from parity.witnesses.whole import run_whole
from parity.witnesses.with_reference import ReferenceWitness

_CUT = 2.0  # deviations, where the original cuts its normal distribution
_LEFT = 0.8796  # the deviation of what is left, as a share of the whole's
_SURE = 6.0  # deviations of an estimate, which chance does not reach
_CONSTANT = {"bias": 0.0, "beta": 0.0, "gamma": 1.0}  # what the original begins with, by the end of a name
_POSITIONS = "position_embeddings.embedding"


def made(bench: Bench) -> Iterator[Row]:
    """Draw the weights from a seed: they are as the original draws them, the same in both frameworks, and counted."""
    inputs, digests = _short(bench), dict[str, Mapping[str, str]]()
    for user in bench.users:
        new = user.made(bench.seed + 1)
        weights, digests[user.name] = new.weights(), new.witness.digests()
        problem = _as_drawn(weights, bench) or _as_counted(weights, new) or _as_elsewhere(digests, bench)
        if problem:
            yield bench.scene(inputs).failed((user.name, TRUTH), "called", bench.name, problem)
            continue
        truth = ReferenceWitness(Reference.of(bench.config, bench.head, weights)).start(inputs)[0]
        yield from bench.rows(user.name, inputs, new.witness.start(inputs)[0], truth, "local")


def _as_drawn(weights: Mapping[str, np.ndarray], bench: Bench) -> str:
    """Say which weight is not as the original initialises it, or is missing; empty where all are.

    Biases and beta are 0, gamma is 1. All others are normal with initializer_range, cut at two deviations.
    """
    if missing := sorted(set(bench.reference.model.weights) - set(weights)):
        return f"a new model lacks {missing[0]}"
    for name, x in weights.items():
        constant = _CONSTANT.get(name.rpartition(".")[2])
        if constant is not None:
            if (x != constant).any():
                return f"a new model's {name} is not {constant:g} everywhere"
            continue
        unit = x / bench.config.initializer_range
        if not np.abs(unit).max() <= _CUT * 1.000001:  # NaN fails too; float32 rounds the limit
            return f"a new model's {name} is beyond {_CUT:g} times initializer_range"
        near = _SURE / np.sqrt(x.size)
        if abs(unit.mean()) > near or abs(unit.std() - _LEFT) > near:
            return (
                f"a new model's {name} has mean {unit.mean():.3f} and deviation {unit.std():.3f} of initializer_range"
            )
    return ""


def _as_counted(weights: Mapping[str, np.ndarray], new: User) -> str:
    """Say that the model counts other parameters than it has; empty where it does not."""
    numbers = sum(x.size for x in weights.values())
    return "" if new.size() == numbers else f"num_parameters says {new.size()}, and the weights hold {numbers} numbers"


def _as_elsewhere(digests: Mapping[str, Mapping[str, str]], bench: Bench) -> str:
    """Say which weight the frameworks draw differently from one seed; empty where they draw alike."""
    one, *others = digests.values()
    shared = set(bench.reference.model.weights)
    differing = sorted(name for other in others for name in shared if one[name] != other[name])
    return f"from one seed, the frameworks draw different {differing[0]}" if differing else ""


def extended(bench: Bench) -> Iterator[Row]:
    """Half as many positions again, repeated and stretched: texts at the end of the table that was, and beyond."""
    P = bench.config.max_position_embeddings
    inputs = _short(bench)
    width = inputs["input_ids"].shape[-1]
    L = P + max(1, P // 2)
    places = np.arange(L - width, L, dtype=np.int32) if width < L else np.arange(width, dtype=np.int32)
    inputs["position_ids"] = np.broadcast_to(places.clip(0, L - 1), inputs["input_ids"].shape).copy()
    weights = bench.reference.model.weights
    (name,) = (name for name in weights if name.endswith(_POSITIONS))
    for method, table in (("tile", _repeated), ("interpolate", _stretched)):
        config = bench.config.replace(max_position_embeddings=L)
        held = ChainMap({name: table(np.asarray(weights[name]), L)}, dict(weights.given))
        witness = ReferenceWitness(replace(bench.reference.model, config=config, weights=type(weights)(held)))
        truth = bench.returned(run_whole(witness, inputs).taps)
        for user in bench.users:
            yield from bench.rows(user.name, inputs, user.extended(L, method).call(inputs), truth)


def _repeated(table_PD: np.ndarray, L: int) -> np.ndarray:
    """Position p has the embedding of position p mod P, as Longformer was made."""
    return np.concatenate([table_PD] * -(-L // len(table_PD)))[:L]


def _stretched(table_PD: np.ndarray, L: int) -> np.ndarray:
    """Each feature between its neighbours; the first and the last position stay."""
    P = len(table_PD)
    return np.stack([np.interp(np.linspace(0, P - 1, L), np.arange(P), x_P) for x_P in table_PD.T], axis=1)


def _short(bench: Bench) -> Inputs:
    """Two short texts for the head, the second of which ends earlier."""
    L = min(2 * bench.config.block_size - 3, short_length(bench.config))
    return bench.own_inputs(mixed(bench.config, bench.rng, [L, max(1, L // 2)], L))
