"""Which key block one query block attends to in place of another, found from what attention computed.

Legend: B batch, L length, N heads, H head size, W block size, n key blocks, R queries of the block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from parity.faults.setup import Setup
from parity.reference.attention import Visibility, attend

Taps = dict[str, np.ndarray]


def other_block(
    layer: int, head: int, block: int, setup: Setup, reference: Any, given: Taps
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the context with the one key block exchanged that comes nearest to the framework's; full attention: none.

    given: the framework's query, key, value [B, N, L, H] and context [B, L, N, H] of the layer, float64.
    """
    _, stream = reference.start(setup.inputs)
    seen: Visibility = reference.model.visibility(layer, stream)
    if seen.counts is None:
        return
    listed = seen.counts[head, block]
    present = -(-given["query"].shape[2] // seen.block_size)
    swaps = [(old, new) for old in np.flatnonzero(listed[:present]).tolist() for new in range(present) if new != old]
    parts = _parts(head, block, seen, given)
    old, new = min(swaps, key=lambda swap: _error(_exchanged(listed, *swap)[:present], parts))
    counts = seen.counts.copy()
    counts[head, block] = _exchanged(listed, old, new)
    context = attend(given["query"], given["key"], given["value"], replace(seen, counts=counts))
    yield f"pattern: query block {block} of head {head} lists block {new}, not {old}", context


def _exchanged(listed: np.ndarray, old: int, new: int) -> np.ndarray:
    found = listed.copy()
    found[old] -= 1
    found[new] += 1
    return found


def _parts(head: int, block: int, seen: Visibility, given: Taps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of exp(score) [n, R] and of exp(score) value [n, R, H] over each key block, and the framework's context."""
    W, H = seen.block_size, given["query"].shape[-1]
    rows = slice(block * W, (block + 1) * W)
    scores_RL = given["query"][0, head, rows] @ given["key"][0, head].T / math.sqrt(H)
    weights_RL = np.exp(scores_RL - scores_RL.max(axis=-1, keepdims=True)) * seen.mask[0]
    starts = np.arange(0, weights_RL.shape[1], W)
    sums_nR = np.add.reduceat(weights_RL, starts, axis=1).T
    values_nRH = np.add.reduceat(weights_RL[:, :, None] * given["value"][0, head], starts, axis=1).swapaxes(0, 1)
    return sums_nR, values_nRH, given["context"][0, rows, head]


def _error(listed_n: np.ndarray, parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """How far attention to some key blocks, each as often as it is listed, is from the framework's context."""
    sums_nR, values_nRH, context_RH = parts
    found_RH = np.tensordot(listed_n, values_nRH, 1) / np.tensordot(listed_n, sums_nR, 1)[:, None]
    return float(np.abs(found_RH - context_RH).max())
