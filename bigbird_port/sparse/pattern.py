"""Which key blocks each query block attends to, as the original chooses them.

Legend: N heads, n blocks in the sequence, Q query blocks with a list of their own (of a whole text: 1 .. n-2),
S slots in such a list, W block size, r random blocks a query block, m blocks in 4096 tokens.

Sources: bigbird/core/attention.py of google-research/bigbird; Zaheer et al. 2020, section 2.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bigbird_port.families.configuration import Sparse

FULL_ATTENTION_UP_TO = 512  # the original runs full attention up to this configured length
PAPER_PLAN_LENGTHS = (1024, 2048, 3072, 4096)
_PAPER_LENGTH = 4096  # the paper plan is always drawn for this many tokens
_PAPER_WINDOW = 1024


class NoPlanError(ValueError):
    """The original has no plan of random blocks for this length (it stops with a shape error)."""


class Text(NamedTuple):
    """Where a text stands in its row of blocks."""

    first: int
    blocks: int


@dataclass(frozen=True, eq=False)
class Pattern:
    """The block-sparse pattern of one layer, for a row of blocks: one text, or (see packing) several in succession.

    key_blocks: int32 [N, Q, S], the key blocks of each list; a block may stand twice.
    live: bool [N, Q, S], False for slots that do not count (their key block is a placeholder). Of what
        fold_repeats returns: int32, how often a slot counts.
    rows: int32 [Q], the query block that each list belongs to, in ascending order.
    texts: the texts of the row. Their blocks without a list are global: they attend to all keys of their text.
    """

    key_blocks: np.ndarray
    live: np.ndarray
    rows: np.ndarray
    texts: tuple[Text, ...]

    def global_blocks(self) -> tuple[tuple[int, ...], ...]:
        """Each text's global query blocks: its first, and the whole pattern's last if the text reaches it."""
        listed = set(self.rows.tolist())
        return tuple(tuple(i for i in range(t.first, t.first + t.blocks) if i not in listed) for t in self.texts)


def rand_attn(num_heads: int, num_blocks: int, block_size: int, num_random_blocks: int, seed: int) -> np.ndarray:
    """Return the random key blocks of one layer: int32 [N, n-2, r], rows for query blocks 1 .. n-2.

    The stream is numpy.random.RandomState(seed), drawn in the original's order; the original's seed is the layer's
    index. Raises NoPlanError where the original has no plan.
    """
    length = num_blocks * block_size
    if num_blocks < 3:
        raise NoPlanError(_no_plan(length, block_size, num_random_blocks))
    rng = np.random.RandomState(seed)
    if length in PAPER_PLAN_LENGTHS:
        plan = _paper_plan(rng, num_heads, num_blocks, block_size, num_random_blocks)
    else:
        plan = _general_plan(rng, num_heads, num_blocks, num_random_blocks, length)
    if plan.max() >= num_blocks:  # the paper plan with blocks of 512 and more
        raise NoPlanError(_no_plan(length, block_size, num_random_blocks))
    return plan


def _paper_plan(rng: np.random.RandomState, N: int, n: int, W: int, r: int) -> np.ndarray:
    m = _PAPER_LENGTH // W
    last = _PAPER_WINDOW // W - 1 if _PAPER_WINDOW > 2 * W else m - 1
    plan = np.zeros((N, m, r), np.int32)
    for head in range(N):
        for row in range(1, m - 1):
            drawn = rng.permutation(_paper_candidates(row, m, last))[:r]
            if len(drawn) < r:
                raise NoPlanError(_no_plan(n * W, W, r))
            plan[head, row] = drawn
    return plan[:, 1 : n - 1]


def _paper_candidates(row: int, m: int, last: int) -> np.ndarray:
    """Key blocks from which the paper plan draws for a row; positions in `middle`, not block numbers."""
    middle = np.arange(1, m - 1)
    if row == 1:
        return middle[2:last]
    if row == 2:
        return middle[3:last]
    start, end = row - 2, row
    if row >= m - 3 or start > last:
        return middle[:last]
    if end + 1 == last:
        return middle[:start]
    return np.concatenate((middle[:start], middle[end + 1 : last]))


def _general_plan(rng: np.random.RandomState, N: int, n: int, r: int, length: int) -> np.ndarray:
    ends, counts = _segments(n, r)
    columns = np.cumsum([0, *counts])
    plan = np.zeros((N, n, r), np.int32)
    for rows, segment in _general_draws(ends, counts):
        low = ends[segment - 1] if segment else 0
        for row in rows:
            for head in range(N):
                drawn = _legal_draw(rng, row, low, ends[segment])[: counts[segment]]
                if len(drawn) < counts[segment]:
                    raise NoPlanError(_no_plan(length, length // n, r))
                plan[head, row, columns[segment] : columns[segment + 1]] = drawn
    return plan[:, 1 : n - 1]


def _segments(n: int, r: int) -> tuple[list[int], list[int]]:
    """Ends (blocks) of the general plan's segments and the random blocks drawn from each."""
    if 2 * r + 5 < n:
        return [2 * r + 5, n], [r, 0]
    if r + 5 < n:
        return [r + 5, n], [r // 2, r - r // 2]
    return [n], [r]


def _general_draws(ends: Sequence[int], counts: Sequence[int]) -> Iterator[tuple[range, int]]:
    """Yield (query rows, segment drawn from) in the order in which the original draws."""
    for s, end in enumerate(ends):
        start = ends[s - 1] if s else 0
        if s and counts[s]:
            yield range(1, start), s
        for earlier in range(s):
            if counts[earlier]:
                yield range(start, end), earlier
        if counts[s]:
            yield range(max(start, 1), end), s


def _legal_draw(rng: np.random.RandomState, row: int, low: int, high: int) -> np.ndarray:
    """A permutation of key blocks [low, high) without the row's window and the global blocks."""
    illegal = {row - 1, row, row + 1, 0, high - 1}
    if row == 1:
        illegal.add(high - 2)
    if row == high - 2:
        illegal.add(1)
    drawn = rng.permutation(np.arange(low, high))
    return drawn[~np.isin(drawn, list(illegal))]


def _no_plan(length: int, block_size: int, r: int) -> str:
    return f"the original has no plan of random blocks for length {length} (block size {block_size}, {r} random blocks)"


@functools.cache
def has_plan(num_blocks: int, block_size: int, num_random_blocks: int) -> bool:
    """Whether the original has a plan for n blocks: a matter of how many candidates a row has, not of the draw."""
    try:
        rand_attn(1, num_blocks, block_size, num_random_blocks, seed=0)
    except NoPlanError:
        return False
    return True


def pattern_blocks(config: Sparse, length: int) -> int | None:
    """Return the number of blocks n of the pattern that a batch of ``length`` tokens uses; None is full attention.

    Raises ValueError if the batch is longer than config.max_encoder_length, and warns where full attention
    stands in for a plan that the original does not have.
    """
    configured = config.max_encoder_length or length
    if length > configured:
        raise ValueError(
            f"the inputs are {length} tokens long, but the pattern is that of max_encoder_length={configured}: "
            f"shorten them, or override it: from_pretrained(folder, max_encoder_length={length}), "
            f"on the command line --max-encoder-length {length}"
        )
    n = -(-configured // config.block_size)
    if config.attention_type == "original_full":
        return None
    if config.random_blocks == "transformers":
        return None if n <= 5 + 2 * config.num_random_blocks else n
    if configured <= FULL_ATTENTION_UP_TO:
        return None
    if not has_plan(n, config.block_size, config.num_random_blocks):
        _warn_no_plan(n, config.block_size, config.num_random_blocks)
        return None
    return n


@functools.cache  # said once for each length
def _warn_no_plan(n: int, W: int, r: int) -> None:
    shorter = next((k for k in range(n - 1, FULL_ATTENTION_UP_TO // W, -1) if has_plan(k, W, r)), None)
    longer = next((k for k in range(n + 1, n + 4 * r + 64) if has_plan(k, W, r)), None)
    below = f"{shorter * W} below" if shorter else f"full attention up to {FULL_ATTENTION_UP_TO} below"
    above = f"{longer * W} above" if longer else "none above"
    warnings.warn(
        f"{_no_plan(n * W, W, r)}: full attention runs instead. Nearest lengths with a plan: {below}, {above}",
        stacklevel=2,
    )


@functools.lru_cache(maxsize=256)
def layer_pattern(config: Sparse, seed: int, length: int) -> Pattern | None:
    """Return the pattern of one layer for a batch of ``length`` tokens, or None for full attention.

    seed: the layer's index, as in the original, or any other to redraw the random blocks by the same rules.
    Raises ValueError as pattern_blocks does.
    """
    n = pattern_blocks(config, length)
    if n is None:
        return None
    N, W, r = config.num_attention_heads, config.block_size, config.num_random_blocks
    if config.random_blocks == "transformers":
        random = np.zeros((N, n - 2, r), np.int32)
    else:
        random = rand_attn(N, n, W, r, seed)
    whole = Pattern(*key_lists(random), np.arange(1, n - 1, dtype=np.int32), (Text(0, n),))
    pattern = crop(whole, -(-length // W))
    for array in (pattern.key_blocks, pattern.live, pattern.rows):
        array.flags.writeable = False  # the result is cached
    return pattern


def key_lists(random: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return key_blocks int32 [N, Q, S] and live bool [N, Q, S] from random blocks [N, n-2, r].

    Slots: 0, i-1, i, i+1, n-1, random(i). The window slots that repeat a global block by construction
    (left of row 1, right of row n-2) are not live; random blocks that repeat another stay, and count twice.
    """
    N, Q, _ = random.shape
    i = np.arange(1, Q + 1, dtype=np.int32)
    fixed = np.stack((np.zeros_like(i), i - 1, i, i + 1, np.full_like(i, Q + 1)), axis=-1)
    key_blocks = np.concatenate((np.broadcast_to(fixed, (N, *fixed.shape)), random), axis=-1).astype(np.int32)
    live = np.ones(key_blocks.shape, bool)
    live[:, 0, 1] = False
    live[:, Q - 1, 3] = False
    return key_blocks, live


def crop(pattern: Pattern, blocks: int) -> Pattern:
    """Keep the first ``blocks`` blocks of a text: padding blocks weigh exp(-10000) = 0 in the original."""
    Q = min(len(pattern.rows), blocks - 1)
    key_blocks = pattern.key_blocks[:, :Q]
    inside = key_blocks < blocks
    live = pattern.live[:, :Q] * inside
    return Pattern(np.where(inside, key_blocks, 0), live, pattern.rows[:Q].copy(), (Text(0, blocks),))


def fold_repeats(pattern: Pattern) -> Pattern:
    """Return the same pattern with each list's distinct key blocks, ``live`` saying how often each counts (int32).

    A block that counts m times is a block whose scores have log(m) added, at a fraction of the work: where every random
    block is block 0 (transformers' evaluation mode), five slots do what eight do. S is the most that a list needs.
    """
    return pattern if pattern.live.dtype != bool else _folded(pattern)


@functools.lru_cache(maxsize=256)  # by identity, and those of layer_pattern are cached as well
def _folded(pattern: Pattern) -> Pattern:
    listed_NQS = np.where(pattern.live, pattern.key_blocks, -1)
    same_NQSS = listed_NQS[..., :, None] == listed_NQS[..., None, :]
    first_NQS = pattern.live & ~np.tril(same_NQSS, -1).any(axis=-1)
    order_NQS = np.argsort(~first_NQS, axis=-1, kind="stable")[..., : first_NQS.sum(axis=-1).max(initial=1)]
    blocks, counts = (
        np.take_along_axis(x, order_NQS, axis=-1).astype(np.int32)
        for x in (pattern.key_blocks, first_NQS * same_NQSS.sum(axis=-1))
    )
    return replace(pattern, key_blocks=np.where(counts, blocks, blocks[..., :1]), live=counts)
