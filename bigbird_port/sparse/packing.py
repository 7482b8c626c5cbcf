"""A batch of mixed lengths as one row of the blocks that hold text, so that padding blocks cost nothing.

What real tokens get is unchanged: a padding block weighs exp(-10000) = 0 as a key, and its own results are not read.

Legend: B texts, L length, n blocks of a padded text, P packed blocks, W block size, N heads, Q lists, S slots.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from bigbird_port.sparse.pattern import Pattern, Text, crop


@dataclass(frozen=True, eq=False)
class Packing:
    """Which blocks of a batch stand in the packed row.

    blocks: int32 [P], where each packed block is among the batch's blocks: text * n + its place in the text.
    texts: where each text stands in the packed row.
    """

    blocks: np.ndarray
    texts: tuple[Text, ...]


def make_packing(mask_BL: np.ndarray, block_size: int) -> Packing | None:
    """Return a Packing that keeps each text's blocks up to its last real token; None if no block would be skipped.

    mask_BL: true for real tokens. L need not be a multiple of the block size.
    """
    L = mask_BL.shape[1]
    return packing_of((np.arange(1, L + 1) * (mask_BL != 0)).max(axis=1), L, block_size)


def packing_of(ends_B: np.ndarray, length: int, block_size: int) -> Packing | None:
    """Return the same for texts whose last real token stands before ``ends_B``, 0 where there is none.

    The first block of a text is kept even if it holds no real token.
    """
    B, n = len(ends_B), -(-length // block_size)
    counts_B = np.maximum(-(-ends_B // block_size), 1)
    if counts_B.sum() == B * n:
        return None
    firsts_B = np.cumsum(counts_B) - counts_B
    blocks = np.concatenate([text * n + np.arange(count) for text, count in enumerate(counts_B)])
    return Packing(blocks.astype(np.int32), tuple(map(Text, firsts_B.tolist(), counts_B.tolist())))


def packed_pattern(pattern: Pattern, packing: Packing) -> Pattern:
    """Return the pattern of the packed row.

    pattern: that of one padded text. It is cropped to the blocks of each text.
    """
    return _packed(pattern, packing.texts)


@functools.lru_cache(maxsize=64)  # patterns by identity, and layer_pattern's are cached as well
def _packed(pattern: Pattern, texts: tuple[Text, ...]) -> Pattern:
    parts = [(text.first, crop(pattern, text.blocks)) for text in texts]
    packed = Pattern(
        np.concatenate([part.key_blocks + first for first, part in parts], axis=1),
        np.concatenate([part.live for _, part in parts], axis=1),
        np.concatenate([part.rows + first for first, part in parts]),
        texts,
    )
    for array in (packed.key_blocks, packed.live, packed.rows):
        array.flags.writeable = False  # the result is cached
    return packed
