"""Probes: calls of the models as users make them. What returns the same from all of them is the same function.

A probe knows nothing right or wrong. It returns what the code computes: outputs, losses, gradients, caches, files. On
a mutant that is compared with what the code as it is returned. Legend: B batch, L length.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from parity.mutants.scope import Side

ROUNDING = 1e-5  # of the largest value: float32 loses as much where sums are in another order
Flat = dict[str, Any]
CONFIG: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 1100,
    "initializer_range": 0.3,
    "block_size": 16,
    "num_random_blocks": 2,
    "num_labels": 3,
    "sep_token_id": 5,
    "max_encoder_length": 528,
}


@dataclass(frozen=True)
class Probe:
    """name: for people, the condition that would see a difference. run: returns what is compared."""

    name: str
    run: Callable[[], Flat]


def probes(into: Side) -> list[Probe]:
    """Return the probes of a side: those of what both share, then the framework's own."""
    found = []
    for room in ("shared", into):
        module: Any = importlib.import_module(f"parity.mutants.probes.of_{room}")
        found += [Probe(name, partial(_run, function)) for name, function in module.PROBES.items()]
    return found


def _run(function: Callable[[], Iterator[tuple[str, Any]]]) -> Flat:
    found: Flat = {}
    for name, value in function():
        found |= flat(value, name)
    return found


def flat(value: Any, name: str) -> Flat:
    """Return arrays and plain values of a nested value, by their paths."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {path: x for key, part in value.items() for path, x in flat(part, f"{name}.{key}").items()}
    if isinstance(value, list | tuple):
        return {path: x for i, part in enumerate(value) for path, x in flat(part, f"{name}.{i}").items()}
    if str(getattr(value, "dtype", "")).startswith("key"):
        return {}  # a key of a generator
    if hasattr(value, "dtype"):
        dtype = str(value.dtype)
        if hasattr(value, "detach"):  # a tensor of torch
            value = value.detach().float().numpy() if "bfloat16" in dtype else value.detach().numpy()
        return {name: np.asarray(value), f"{name} dtype": dtype}
    return {name: repr(value)}


def difference(one: Flat, other: Flat) -> str:
    """Say what is different: empty where nothing is, "rounding" where nothing else is."""
    rounded = ""
    if one.keys() != other.keys():
        return f"other values: {sorted(one.keys() ^ other.keys())[0]}"
    for name, x in one.items():
        y = other[name]
        if not isinstance(x, np.ndarray):
            if x != y:
                return f"{name}: {x[:60]} is {y[:60]}"
        elif x.shape != y.shape:
            return f"{name}: {list(x.shape)} is {list(y.shape)}"
        elif x.tobytes() != y.tobytes():
            if x.dtype.kind not in "fV" or not _close(x.astype(np.float64), y.astype(np.float64)):
                return name
            rounded = "rounding"
    return rounded


def _close(x: np.ndarray, y: np.ndarray) -> bool:
    finite = np.isfinite(x)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return False
    if not finite.any():
        return True
    return bool(np.abs(x[finite] - y[finite]).max() <= ROUNDING * np.abs(x[finite]).max())


def padded_ids(B: int, L: int, seed: int = 0) -> np.ndarray:
    """Ids of texts with a separator each; all but the first end early, and 0 pads them."""
    ids = np.random.default_rng(seed).integers(6, CONFIG["vocab_size"], (B, L))
    ids[:, 3] = CONFIG["sep_token_id"]
    for b in range(1, B):
        ids[b, max(4, L - 1 - (2 * b - 1) * L // (2 * B)) :] = 0
    return ids


def draw(*shape: int, seed: int = 1) -> np.ndarray:
    """Numbers of a normal distribution, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
