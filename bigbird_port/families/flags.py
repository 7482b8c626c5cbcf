"""What the flags of all families' originals share: the activation, and the one length that inputs are padded to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bigbird_port.sparse.pattern import FULL_ATTENTION_UP_TO, has_plan

if TYPE_CHECKING:
    from bigbird_port.families.configuration import Sparse

# The original's "gelu" is the tanh approximation (bigbird/core/utils.py).
_ACTS = {"gelu_new": "gelu", "relu": "relu", "tanh": "tanh", "linear": "linear"}


def act_flag(activation: str) -> str:
    """Return the flag of an activation."""
    return _ACTS.get(activation, activation)


def act_sentences(field: str, activation: str) -> Iterator[str]:
    """What the flag does not express of an activation."""
    if activation == "gelu":
        yield (
            f"{field} is 'gelu', the exact function, which the original does not have: 'gelu' is written, "
            "which is the tanh approximation there, so results differ slightly"
        )
    elif activation not in _ACTS:
        yield f"{field} is {activation!r}, which the original does not have: it will refuse these flags"


def longest_length(config: Sparse) -> int:
    """The longest length that the position embeddings allow and that the original has a plan for."""
    if config.attention_type == "original_full":
        return config.max_position_embeddings
    W, r = config.block_size, config.num_random_blocks
    for n in range(config.max_position_embeddings // W, FULL_ATTENTION_UP_TO // W, -1):
        if has_plan(n, W, r):
            return n * W
    return min(config.max_position_embeddings, FULL_ATTENTION_UP_TO)


def length_sentences(config: Sparse, length: int) -> Iterator[str]:
    """What a flag of this length does not express, where the configuration has none or one without a plan."""
    if config.max_encoder_length is None:
        full = config.attention_type == "original_full" or length <= FULL_ATTENTION_UP_TO
        what = "attention is full, so results are the same" if full else "shorter inputs get that length's pattern"
        yield (
            "max_encoder_length is None, the pattern of each batch's own length, but the original pads every input to "
            f"one length and has the pattern of that: {length} is written; {what}"
        )
    elif config.attention_type == "block_sparse" and length > FULL_ATTENTION_UP_TO:
        n = -(-length // config.block_size)
        if not has_plan(n, config.block_size, config.num_random_blocks):
            yield f"max_encoder_length is {length}, for which the original has no plan of random blocks: it stops there"
