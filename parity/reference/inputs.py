"""What the reference is called with, completed; and what its layers hand on.

Legend: B batch, C choices, L length, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import pattern_blocks
from parity.given.inputs import NAMES, Inputs, check_ids


@dataclass(frozen=True, eq=False)
class Completed:
    """Inputs with what was left out: input_ids, token_type_ids, position_ids, all [B, L].

    mask: bool [B, L], True for real tokens, or [B, L, L], True where a query sees a key. blocks: the pattern's number
    of blocks n, or None for full attention. question: bool [B, L], True where no answer may lie (qa), else None.
    choices: number of choices C (multiple-choice, whose batch is B x C), else None.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    position_ids: np.ndarray
    mask: np.ndarray
    blocks: int | None
    question: np.ndarray | None
    choices: int | None


@dataclass(frozen=True, eq=False)
class Stream:
    """What goes from stage to stage; ``dataclasses.replace(stream, x=...)`` feeds in other hidden states.

    x: hidden states, float64 [B, L, D].
    """

    x: np.ndarray
    given: Completed


def complete_inputs(config: BigBirdConfig, head: str, inputs: Inputs) -> Completed:
    """Add what was left out: padding is pad_token_id, types are 0 (qa: 1 for the context), positions in order.

    Raises ValueError naming an input that is unknown or does not fit.
    """
    if unknown := sorted(set(inputs) - set(NAMES)):
        raise ValueError(f"the reference takes {', '.join(NAMES)}; found {', '.join(unknown)}")
    choices = None
    if head == "multiple-choice":
        choices = inputs["input_ids"].shape[1]
        inputs = {name: x.reshape(-1, *x.shape[2:]) for name, x in inputs.items()}
    ids = inputs["input_ids"]
    if ids.ndim != 2:
        raise ValueError(f"input_ids has shape {list(ids.shape)}, expected [batch, length] (or a batch of choices)")
    question = _question(config, inputs) if head == "qa" else None
    types = np.zeros_like(ids)
    if question is not None and config.type_vocab_size > 1:  # with one type, all are of it
        types = (~question).astype(ids.dtype)
    completed = {
        "input_ids": ids,
        "token_type_ids": np.broadcast_to(inputs.get("token_type_ids", types), ids.shape),
        "position_ids": np.broadcast_to(inputs.get("position_ids", np.arange(ids.shape[1])), ids.shape),
    }
    check_ids(completed, config)
    blocks = pattern_blocks(config, ids.shape[1])
    mask = inputs.get("attention_mask", ids != config.pad_token_id).astype(bool)
    if mask.ndim == 3 and blocks is not None:
        raise ValueError("attention_mask has three axes: a mask of queries and keys works with full attention only")
    mask = np.broadcast_to(mask, ids.shape if mask.ndim == 2 else (*ids.shape, ids.shape[1]))
    return Completed(**completed, mask=mask, blocks=blocks, question=question, choices=choices)


def _question(config: BigBirdConfig, inputs: Inputs) -> np.ndarray:
    """True on the question, [B, L]: up to the first separator (one token where there is none), or the given lengths."""
    ids = inputs["input_ids"]
    lengths = inputs.get("question_lengths", (ids == config.sep_token_id).argmax(axis=1) + 1)
    return np.arange(ids.shape[1]) < lengths.reshape(-1, 1)
