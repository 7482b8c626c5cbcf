"""A row of blocks before anything runs: where its texts, their global blocks and their lists are.

Legend: L length of the row, W block size, Q query blocks with a key list of their own, N heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bigbird_port.sparse.formulation import Formulation
from bigbird_port.sparse.pattern import Text


class TextRows(NamedTuple):
    """A text's rows in L: all, those of its global blocks, and chunks of the others with their lists in Q."""

    rows: slice
    global_rows: list[slice]
    chunks: list[tuple[slice, slice]]


@dataclass(frozen=True)
class Row:
    """What is known of a row of blocks before anything runs: its texts (see KeyLists), and how it is run."""

    texts: tuple[Text, ...]
    global_blocks: tuple[tuple[int, ...], ...]
    block_size: int
    how: Formulation

    def heads(self, N: int) -> list[slice]:
        """The heads that run at once."""
        step = self.how.heads_at_once or N
        return [slice(h, h + step) for h in range(0, N, step)]

    def in_order(self) -> Iterator[TextRows]:
        """The texts. Blocks that have a list follow a text's first, and lists are in the order of their blocks."""
        W, done = self.block_size, 0
        for (first, blocks), own in zip(self.texts, self.global_blocks, strict=True):
            listed = blocks - len(own)
            step, chunks = self.how.blocks_at_once or max(listed, 1), []
            for i in range(0, listed, step):
                end = min(i + step, listed)
                chunks.append((slice((first + 1 + i) * W, (first + 1 + end) * W), slice(done + i, done + end)))
            done += listed
            global_rows = [slice(block * W, (block + 1) * W) for block in own]
            yield TextRows(slice(first * W, (first + blocks) * W), global_rows, chunks)
