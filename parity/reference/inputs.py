"""What the reference is called with, completed; and what its layers hand on.

Legend: B batch, C choices, L length, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.given.inputs import NAMES, Inputs, check_ids
from parity.reference.pattern import blocks_of_pattern

_OF_LAYERS = ("head_mask", "encoder_hidden_states", "encoder_attention_mask")


@dataclass(frozen=True, eq=False)
class Completed:
    """Inputs with what was left out: input_ids, token_type_ids, position_ids, all [B, L].

    mask: bool [B, L], True for real tokens, or [B, L, L], True where a query sees a key. blocks: the pattern's number
    of blocks n, or None for full attention. question: bool [B, L], True where no answer may lie (qa), else None.
    choices: number of choices C (multiple-choice, whose batch is B x C), else None. head_mask: factors [layers, N] of
    the heads' contexts, or None. encoder_states [B, K, D], encoder_mask bool [B, L, K]: what a decoder's queries attend
    to beside its own keys, or None.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    position_ids: np.ndarray
    mask: np.ndarray
    blocks: int | None
    question: np.ndarray | None
    choices: int | None
    head_mask: np.ndarray | None = None
    encoder_states: np.ndarray | None = None
    encoder_mask: np.ndarray | None = None


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
    if unknown := sorted(set(inputs) - {*NAMES, *_OF_LAYERS}):
        raise ValueError(f"the reference takes {', '.join((*NAMES, *_OF_LAYERS))}; found {', '.join(unknown)}")
    of_layers = {name: inputs[name] for name in _OF_LAYERS if name in inputs}
    inputs = {name: x for name, x in inputs.items() if name not in _OF_LAYERS}
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
    blocks = blocks_of_pattern(config, ids.shape[1])
    mask = inputs.get("attention_mask", ids != config.pad_token_id).astype(bool)
    if mask.ndim == 3 and blocks is not None:
        raise ValueError("attention_mask has three axes: a mask of queries and keys works with full attention only")
    mask = np.broadcast_to(mask, ids.shape if mask.ndim == 2 else (*ids.shape, ids.shape[1]))
    found = Completed(**completed, mask=mask, blocks=blocks, question=question, choices=choices)
    return replace(found, **_completed_of_layers(config, of_layers, *ids.shape))


def _completed_of_layers(config: BigBirdConfig, given: Inputs, B: int, L: int) -> dict[str, Any]:
    """Complete what each layer takes: head_mask [N] or [layers, N], and an encoder's states and mask."""
    found: dict[str, Any] = {}
    if "head_mask" in given:
        shape = config.num_hidden_layers, config.num_attention_heads
        found["head_mask"] = np.broadcast_to(given["head_mask"].astype(np.float64), shape)
    if "encoder_hidden_states" in given:
        states = given["encoder_hidden_states"].astype(np.float64)
        mask = given.get("encoder_attention_mask", np.ones(states.shape[:2])) != 0
        found["encoder_states"] = states
        found["encoder_mask"] = np.broadcast_to(mask[:, None, :] if mask.ndim == 2 else mask, (B, L, states.shape[1]))
    return found


def _question(config: BigBirdConfig, inputs: Inputs) -> np.ndarray:
    """True on the question, [B, L]: up to the first separator (one token where there is none), or the given lengths."""
    ids = inputs["input_ids"]
    lengths = inputs.get("question_lengths", (ids == config.sep_token_id).argmax(axis=1) + 1)
    return np.arange(ids.shape[1]) < lengths.reshape(-1, 1)
