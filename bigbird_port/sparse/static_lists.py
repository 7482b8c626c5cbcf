"""A Pattern as arrays of few distinct shapes, because compiled code is compiled for each shape anew.

A global query block attends to more key blocks than a list has slots. So it gets several lists, which are called its
parts, and the softmaxes of the parts are added up afterwards. Every list is then the same work, whether the batch is
packed or not.

Legend: N heads, P blocks in the row, Q query blocks with one list, G global query blocks, E parts of theirs, T = Q + E
lists, S slots in each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bigbird_port.sparse.pattern import Pattern, Text

_MOST_GLOBAL = 2  # global query blocks of a text: its first and the pattern's last


class StaticLists(NamedTuple):
    """Which key blocks each list has, and which query block it belongs to.

    key_blocks, counts: int32 [N, T, S], the key blocks of each list and how often each counts. The Q lists of ordinary
        query blocks come first, then the E parts.
    rows: int32 [Q], the query blocks with one list.
    global_blocks: int32 [G], the global query blocks.
    parts: int32 [E], ascending, the index in global_blocks that each part belongs to.
    places: int32 [P], where each block of the row stands in rows followed by global_blocks.
    """

    key_blocks: np.ndarray
    counts: np.ndarray
    rows: np.ndarray
    global_blocks: np.ndarray
    parts: np.ndarray
    places: np.ndarray


class _Part(NamedTuple):
    """Some of the key blocks of a global query block. A count of 0 marks a slot that holds no block."""

    key_blocks: np.ndarray
    counts: np.ndarray


def static_lists(pattern: Pattern, rounded: bool = False) -> StaticLists:
    """Return the lists of a pattern.

    rounded: whether P, Q and E are rounded up, so that fewer shapes occur. Every text then has two global blocks. A
        block that is added for the sake of the shape counts 0 times.
    """
    N, Q, S = pattern.key_blocks.shape
    P = sum(text.blocks for text in pattern.texts)
    global_blocks: list[int] = []
    owners: list[int] = []
    parts: list[_Part] = []
    for text, own in zip(pattern.texts, pattern.global_blocks(), strict=True):
        missing = _MOST_GLOBAL - len(own) if rounded else 0
        of_text = [list(_parts_of(text, S))] * len(own) + [[_dead_part(text.first, S)]] * missing
        for block, its_parts in zip((*own, *[text.first] * missing), of_text, strict=True):
            owners += [len(global_blocks)] * len(its_parts)
            global_blocks.append(block)
            parts += its_parts
    whole_P, whole_E = (round_up(size, rounded) for size in (P, len(parts)))
    whole_Q = whole_P - len(pattern.texts) if rounded else Q  # every text has a global block at least
    places = np.zeros(P, np.int32)
    places[global_blocks[::-1]] = whole_Q + np.arange(len(global_blocks), dtype=np.int32)[::-1]
    places[pattern.rows] = np.arange(Q, dtype=np.int32)
    extra_Q, extra_E, extra_P = whole_Q - Q, whole_E - len(parts), whole_P - P
    parts += [_dead_part(0, S)] * extra_E
    of_heads = (np.broadcast_to(np.stack(x), (N, len(parts), S)) for x in zip(*parts, strict=True))
    key_blocks, counts = (
        np.concatenate((np.pad(x.astype(np.int32), ((0, 0), (0, extra_Q), (0, 0))), part), axis=1)
        for x, part in zip((pattern.key_blocks, pattern.live), of_heads, strict=True)
    )
    return StaticLists(
        key_blocks,
        counts,
        np.pad(pattern.rows, (0, extra_Q)),
        np.array(global_blocks, np.int32),
        np.array(owners + [len(global_blocks) - 1] * extra_E, np.int32),
        np.pad(places, (0, extra_P)),
    )


def round_up(size: int, rounded: bool = True) -> int:
    """Return the next of few sizes: there are sixteen between a power of two and the next, so at most 1/16 is added."""
    step = max(1, 1 << size.bit_length() >> 5) if rounded else 1
    return -(-size // step) * step


def _parts_of(text: Text, S: int) -> Iterator[_Part]:
    """All key blocks of a text, S at a time."""
    for start in range(0, text.blocks, S):
        numbers = np.arange(start, start + S, dtype=np.int32)
        inside = numbers < text.blocks
        yield _Part(text.first + np.where(inside, numbers, start), inside.astype(np.int32))


def _dead_part(block: int, S: int) -> _Part:
    return _Part(np.full(S, block, np.int32), np.zeros(S, np.int32))
