"""A Pattern as tasks of like size for a device, over query blocks or, for the gradient, over key blocks.

A task is one block and at most S blocks that it meets. A block that meets more has several tasks, which are called its
parts, and their results are added up. So a global block takes no longer than any other.

Legend: N heads, P blocks in the row, T tasks of a head, S slots in a task, E tasks that are parts, G blocks that have
parts, M the most parts of a block.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from bigbird_port.sparse.pattern import Pattern

_Meetings = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # head, own block, other block, how often it counts


class Tasks(NamedTuple):
    """What each task does. The first E tasks of a head are parts, the others T - E are the blocks without parts.

    rows: int32 [N, T], the block that a task belongs to; ascending among parts, and among the others.
    blocks, counts: int32 [N, T, S], the blocks that it meets, and how often each counts. Slots that hold no block
        count 0 and come last. A task that counts nothing is there for the shape's sake.
    owners: int32 [N, G], the blocks that have parts; -1 for the shape's sake.
    parts: int32 [N, G, M], the tasks that are an owner's parts; -1 for the shape's sake.
    places: int32 [N, P], where each block stands in the T - E blocks without parts followed by the owners.
    part_tasks: the number E.
    """

    rows: np.ndarray
    blocks: np.ndarray
    counts: np.ndarray
    owners: np.ndarray
    parts: np.ndarray
    places: np.ndarray
    part_tasks: int


@functools.lru_cache(maxsize=64)  # by identity, as fold_repeats is
def tasks_of(pattern: Pattern, over_keys: bool = False) -> Tasks:
    """Return the tasks of a pattern whose repeats are folded (fold_repeats).

    over_keys: a task is a key block and the query blocks that attend to it, twice as many to a task, because how many
        query blocks draw a key block varies.
    """
    N, _, S = pattern.key_blocks.shape
    head, query, key, count = _meetings(pattern)
    own, other = (key, query) if over_keys else (query, key)
    P = sum(text.blocks for text in pattern.texts)
    order = np.lexsort((other, own, head))
    return _split((head[order], own[order], other[order], count[order]), N, P, 2 * S if over_keys else S)


def _meetings(pattern: Pattern) -> _Meetings:
    """Every query block and key block that meet: head, query block, key block, how often it counts."""
    head, of_list, slot = np.nonzero(pattern.live)
    listed = (
        head,
        pattern.rows[of_list],
        pattern.key_blocks[head, of_list, slot],
        pattern.live[head, of_list, slot],
    )
    found = [listed]
    N = len(pattern.key_blocks)
    for text, own in zip(pattern.texts, pattern.global_blocks(), strict=True):
        keys = np.arange(text.first, text.first + text.blocks)
        heads, queries, all_keys = (x.ravel() for x in np.meshgrid(np.arange(N), np.array(own), keys, indexing="ij"))
        found.append((heads, queries, all_keys, np.ones(len(heads), np.int32)))
    head, query, key, count = (np.concatenate(x).astype(np.int64) for x in zip(*found, strict=True))
    return head, query, key, count


def _split(meetings: _Meetings, N: int, P: int, S: int) -> Tasks:
    """Cut what each block meets into tasks of S; the meetings are sorted by head and own block."""
    head, own, other, count = meetings
    size_NP = np.bincount(head * P + own, minlength=N * P).reshape(N, P)
    rank = np.arange(len(own)) - (np.cumsum(size_NP) - size_NP.ravel())[head * P + own]
    pieces_NP = -(-size_NP // S)
    parts_NP, whole_NP = np.where(pieces_NP > 1, pieces_NP, 0), pieces_NP == 1
    E, G, M = parts_NP.sum(1).max(), (pieces_NP > 1).sum(1).max(), parts_NP.max()
    T = E + whole_NP.sum(1).max()
    first_NP = np.where(whole_NP, E + np.cumsum(whole_NP, 1) - 1, np.cumsum(parts_NP, 1) - parts_NP)
    task, slot = first_NP[head, own] + rank // S, rank % S
    rows, blocks, counts = (np.zeros(shape, np.int32) for shape in ((N, T), (N, T, S), (N, T, S)))
    rows[head, task] = own
    starts = slot == 0
    blocks[head[starts], task[starts]] = other[starts, None]  # slots without a block name one of the same text
    blocks[head, task, slot], counts[head, task, slot] = other, count
    owners, parts = np.full((N, G), -1, np.int32), np.full((N, G, M), -1, np.int32)
    places = np.where(whole_NP, first_NP - E, 0).astype(np.int32)
    for n, block in np.argwhere(pieces_NP > 1):
        place = int((pieces_NP[n, :block] > 1).sum())
        owners[n, place], places[n, block] = block, T - E + place
        parts[n, place, : parts_NP[n, block]] = first_NP[n, block] + np.arange(parts_NP[n, block])
    return Tasks(rows, blocks, counts, owners, parts, places, int(E))
