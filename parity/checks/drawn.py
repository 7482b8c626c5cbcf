"""Whether the product's random blocks are those that the reference draws anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import layer_pattern, pattern_blocks
from parity.checks.integrity import Check
from parity.reference.attention import random_blocks_of
from parity.reference.pattern import blocks_of_pattern


@dataclass(frozen=True)
class Drawn:
    """A configuration and the length of its pattern."""

    config: BigBirdConfig
    length: int


def check_drawn(patterns: Iterable[Drawn]) -> Check:
    """Compare number of blocks and random blocks of every layer, for every pattern of a run."""
    patterns = dict.fromkeys(patterns)
    problems = [problem for one in patterns for problem in _problems(one)]
    lengths = ", ".join(str(length) for length in dict.fromkeys(one.length for one in patterns))
    detail = (
        problems[0] if problems else f"of every layer, at {lengths} tokens: as drawn anew from the original's rules"
    )
    return Check("random blocks", not problems, detail)


def _problems(one: Drawn) -> Iterator[str]:
    config, length = one.config, one.length
    found, expected = pattern_blocks(config, length), blocks_of_pattern(config, length)
    if found != expected:
        yield f"at {length} tokens the pattern has {found} blocks, expected {expected} (None: full attention)"
        return
    if expected is None:
        return
    for layer in range(config.num_hidden_layers):
        pattern, drawn = layer_pattern(config, layer, length), random_blocks_of(config, layer, expected)
        blocks = None if pattern is None else pattern.key_blocks[:, :, -config.num_random_blocks :]
        if blocks is None or blocks.shape != drawn.shape:
            yield f"layer {layer} at {length} tokens has no such random blocks as {list(drawn.shape)}"
        elif (differing := np.argwhere(blocks != drawn)).size:
            head, row, _ = (int(i) for i in differing[0])
            pair = f"{blocks[head, row].tolist()}, expected {drawn[head, row].tolist()}"
            yield f"layer {layer} at {length} tokens: query block {row + 1} of head {head} lists {pair}"
