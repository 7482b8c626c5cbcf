"""Faults in the pattern of block-sparse attention: one change for both twins and for the float64 reference.

Each change takes the right Pattern and returns the faulty one; its docstring is what reports say of the fault.

Legend: N heads, n blocks, Q query blocks, S slots of a key list (0, left, middle, right, n-1, then r random ones).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse import pattern as plans
from bigbird_port.sparse.pattern import Pattern, layer_pattern, pattern_blocks, rand_attn
from parity.faults.inject import Function, InReference
from parity.reference import model as reference
from parity.reference.attention import Visibility

_LEFT, _RIGHT, _LAST, _RANDOM = 1, 3, 4, 5  # slots
Change = Callable[[Pattern, BigBirdConfig, int, int], Pattern]


def duplicates_removed(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """A key block that is listed twice counts once."""
    live = pattern.live.copy()
    for n, q in np.ndindex(live.shape[:2]):
        seen: set[int] = set()
        for s in np.flatnonzero(live[n, q]):
            block = int(pattern.key_blocks[n, q, s])
            live[n, q, s] = block not in seen
            seen.add(block)
    return replace(pattern, live=live)


def wrong_layer_seed(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """The random blocks of each layer are those of the next one."""
    found = layer_pattern(config, layer + 1, length)
    assert found is not None
    return found


def heads_seeded_anew(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """Every attention head draws from the seed anew, instead of one stream for all attention heads."""
    one = _draw(config, layer, length, heads=1)
    return _with_random(pattern, np.repeat(one, config.num_attention_heads, axis=0), length, config)


def plan_of_2048_missing(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """2048 is not among the lengths of the paper's plan, as in transformers."""
    with mock.patch.object(plans, "PAPER_PLAN_LENGTHS", (1024, 3072, 4096)):
        random = _draw(config, layer, length, config.num_attention_heads)
    return _with_random(pattern, random, length, config)


def window_off_by_one(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """The window lies one block further to the right (at most at the batch's last block)."""
    present = -(-length // config.block_size)
    blocks = pattern.key_blocks.copy()
    blocks[..., _LEFT : _RIGHT + 1] = np.minimum(blocks[..., _LEFT : _RIGHT + 1] + 1, present - 1)
    return replace(pattern, key_blocks=blocks)


def last_global_dropped(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """Query blocks do not attend to the last global block."""
    return replace(pattern, live=_dead(pattern, np.s_[..., _LAST]))


def first_global_dropped(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """Query blocks do not attend to the first global block."""
    return replace(pattern, live=_dead(pattern, np.s_[..., 0]))


def border_counted_twice(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """The window of query block 1 lists block 0 again, which it attends to as a global block already."""
    live = pattern.live.copy()
    live[:, :1, _LEFT] = True
    return replace(pattern, live=live)


def one_random_block(pattern: Pattern, config: BigBirdConfig, layer: int, length: int) -> Pattern:
    """One random block of the first layer is another block: in the list of query block 12 of attention head 1."""
    blocks = pattern.key_blocks.copy()
    if layer == 0 and blocks.shape[0] > 1 and blocks.shape[1] >= 12:
        row = blocks[1, 11]
        row[_RANDOM] = next(block for block in range(1, blocks.shape[1]) if block not in row)
    return replace(pattern, key_blocks=blocks)


def _dead(pattern: Pattern, index: Any) -> np.ndarray:
    live = pattern.live.copy()
    live[index] = False
    return live


def _draw(config: BigBirdConfig, layer: int, length: int, heads: int) -> np.ndarray:
    n = pattern_blocks(config, length)
    assert n is not None
    return rand_attn(heads, n, config.block_size, config.num_random_blocks, seed=layer)


def _with_random(pattern: Pattern, random: np.ndarray, length: int, config: BigBirdConfig) -> Pattern:
    """Other random blocks [N, n-2, r], of which those that the batch holds count."""
    blocks, live = pattern.key_blocks.copy(), pattern.live.copy()
    random = random[:, : blocks.shape[1]]
    inside = random < -(-length // config.block_size)
    blocks[..., _RANDOM:], live[..., _RANDOM:] = np.where(inside, random, 0), inside
    return replace(pattern, key_blocks=blocks, live=live)


def pattern_wrap(change: Change) -> Callable[[Function], Function]:
    """Return the wrapper of a twin's layer_pattern that makes the change."""

    def wrap(right: Function) -> Function:
        def faulty(config: BigBirdConfig, seed: int, length: int) -> Pattern | None:
            found = right(config, seed, length)
            return None if found is None else change(found, config, seed, length)

        return faulty

    wrap.__doc__ = change.__doc__
    return wrap


def pattern_in_reference(change: Change) -> InReference:
    """Return the same change for the reference, which counts how often a block is listed."""
    right = reference.Reference.visibility

    def faulty(self: reference.Reference, i: int, stream: Any) -> Visibility:
        if stream.given.blocks is None:
            return right(self, i, stream)
        length = stream.x.shape[1]
        found = layer_pattern(self.config, i, length)
        assert found is not None
        counts = listed(change(found, self.config, i, length), stream.given.blocks)
        return Visibility(stream.given.mask, counts, self.config.block_size, self.config.is_decoder)

    def patched() -> AbstractContextManager[Any]:
        return mock.patch.object(reference.Reference, "visibility", faulty)

    return patched


def listed(pattern: Pattern, n: int) -> np.ndarray:
    """Return how often each query block lists each key block, int [N, n, n]."""
    N = len(pattern.key_blocks)
    counts = np.zeros((N, n, n), np.int64)
    counts[:, [0, n - 1]] = 1
    heads, rows, slots = np.nonzero(pattern.live)
    np.add.at(counts, (heads, rows + 1, pattern.key_blocks[heads, rows, slots]), 1)
    return counts
