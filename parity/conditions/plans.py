"""Which plan of random blocks a model has, and a length that has the other kind."""

from __future__ import annotations

from typing import Any

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import FULL_ATTENTION_UP_TO, PAPER_PLAN_LENGTHS, has_plan
from parity.given.inputs import default_length


def other_plan(config: BigBirdConfig) -> dict[str, Any]:
    """Return the override to the least length whose plan is of the kind that the model's own is not."""
    own, W, most = default_length(config), config.block_size, config.max_position_embeddings
    general = (n * W for n in range(FULL_ATTENTION_UP_TO // W + 1, most // W + 1) if n * W not in PAPER_PLAN_LENGTHS)
    paper = (length for length in PAPER_PLAN_LENGTHS if length % W == 0)
    for length in general if own in PAPER_PLAN_LENGTHS else paper:
        if length <= most and has_plan(length // W, W, config.num_random_blocks):
            return {"max_encoder_length": length}
    return {}


def why_no_other_plan(config: BigBirdConfig) -> str:
    """Say why a model has no plan of the other kind; empty where it has one."""
    if config.attention_type != "block_sparse" or config.random_blocks == "transformers":
        return "the model draws no random blocks"
    most = config.max_position_embeddings
    return "" if other_plan(config) else f"no length of at most {most} tokens has a plan of the other kind"


def paper_plan(config: BigBirdConfig) -> dict[str, Any]:
    """Return the override to a length of the paper's plan, where a block may be listed twice; none where none fits."""
    return {} if default_length(config) in PAPER_PLAN_LENGTHS or why_no_other_plan(config) else other_plan(config)


def short_plan(config: BigBirdConfig) -> dict[str, Any]:
    """Return the override to the longest length whose tokens all see each other, as the original has it."""
    W, most = config.block_size, min(FULL_ATTENTION_UP_TO, config.max_position_embeddings)
    return {"max_encoder_length": most // W * W or most}


def why_no_short_plan(config: BigBirdConfig) -> str:
    """Say why a model has no pattern that a shorter length is without; empty where it has one."""
    if config.attention_type != "block_sparse" or config.random_blocks == "transformers":
        return "the model draws no random blocks"
    own = default_length(config)
    return "" if own > FULL_ATTENTION_UP_TO else f"at {own} tokens all see each other anyway"
