"""The reference's own draw of the random blocks: written from the original's rules, without the product's code.

Legend: N heads, n blocks, W block size, r random blocks a query block, m blocks in 4096 tokens.

Source: bigbird/core/attention.py of google-research/bigbird, as its rules say: one stream of
numpy.random.RandomState(layer), from which whole rows are drawn in the original's order.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

FULL_UP_TO = 512  # tokens that are configured: the original attends fully
_PAPER = {1024, 2048, 3072, 4096}  # lengths of the paper's plan
_TRAINED, _NEAR = 4096, 1024


def blocks_of_pattern(config: Any, length: int) -> int | None:
    """Return the number of blocks of the pattern for texts of ``length`` tokens; None for full attention.

    Raises ValueError for texts that are longer than the pattern.
    """
    tokens = config.max_encoder_length or length
    if length > tokens:
        raise ValueError(
            f"the inputs are {length} tokens long, but the pattern is that of max_encoder_length={tokens}: shorten "
            f"them, or override it: --max-encoder-length {length}"
        )
    n, r = -(-tokens // config.block_size), config.num_random_blocks
    if config.attention_type == "original_full":
        return None
    if config.random_blocks == "transformers":
        return n if n > 2 * r + 5 else None
    drawn = tokens > FULL_UP_TO and draw(1, n, config.block_size, r, 0) is not None
    return n if drawn else None


@functools.lru_cache(maxsize=256)
def draw(N: int, n: int, W: int, r: int, layer: int) -> np.ndarray | None:
    """Return the random blocks of a layer, int [N, n-2, r]; None where the original has no plan and stops."""
    stream = np.random.RandomState(layer)
    plan = _paper(stream, N, n, W, r) if n * W in _PAPER else _general(stream, N, n, r)
    if plan is None or (plan < 0).any() or (plan >= n).any():
        return None
    plan.flags.writeable = False
    return plan


def _paper(stream: np.random.RandomState, N: int, n: int, W: int, r: int) -> np.ndarray | None:
    """Head by head, for the rows of 4096 tokens, of which the first are kept."""
    m = _TRAINED // W
    last = _NEAR // W - 1 if _NEAR > 2 * W else m - 1
    plan = np.full((N, m, r), -1)
    for head in range(N):
        for i in range(1, m - 1):
            row = stream.permutation(_paper_row(i, m, last))[:r]
            plan[head, i, : len(row)] = row
    return plan[:, 1 : n - 1] if n >= 3 else None


def _paper_row(i: int, m: int, last: int) -> list[int]:
    """What row i is drawn from. Places are counted among the middle blocks 1 .. m-2, as the original slices them."""
    middle = list(range(1, m - 1))
    if i in (1, 2):
        return middle[i + 1 : last]
    before, behind = i - 2, i + 1
    if i in (m - 3, m - 2) or before > last:
        return middle[:last]
    return middle[:before] if behind == last else middle[:before] + middle[behind:last]


def _general(stream: np.random.RandomState, N: int, n: int, r: int) -> np.ndarray | None:
    """Segment by segment; each row of each head takes what is left of a permutation of a segment's blocks."""
    if n < 3:
        return None
    segments = _segments(n, r)
    plan = np.full((N, n, r), -1)
    for rows, (first, end, column, wanted) in _order(segments):
        for i in rows:
            for head in range(N):
                left = [int(block) for block in stream.permutation(np.arange(first, end)) if _may(i, block, end)]
                taken = left[:wanted]
                plan[head, i, column : column + len(taken)] = taken
    return plan[:, 1:-1]


Segment = tuple[int, int, int, int]  # its first block, one past its last, its first column, its columns


def _segments(n: int, r: int) -> list[Segment]:
    near = 2 * r + 5
    if near < n:
        return [(0, near, 0, r), (near, n, r, 0)]
    if r + 5 < n:
        return [(0, r + 5, 0, r // 2), (r + 5, n, r // 2, r - r // 2)]
    return [(0, n, 0, r)]


def _order(segments: list[Segment]) -> Iterator[tuple[range, Segment]]:
    """Which rows draw from which segment, in the original's order."""
    for s, own in enumerate(segments):
        first, end, _, wanted = own
        if s and wanted:
            yield range(1, first), own
        for earlier in segments[:s]:
            if earlier[3]:
                yield range(first, end), earlier
        if wanted:
            yield range(first or 1, end), own


def _may(i: int, block: int, end: int) -> bool:
    """Whether row i may draw a block of a segment that ends before ``end``."""
    near = block in (0, end - 1) or abs(block - i) <= 1
    return not near and not (i == 1 and block == end - 2) and not (i == end - 2 and block == 1)
