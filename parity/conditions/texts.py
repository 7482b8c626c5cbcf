"""Texts as users bring them: of mixed lengths, padded on either side, with holes, and with masks of their own.

Legend: B batch, L length, W block size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.given.inputs import Inputs, default_length

_BLOCKS = 7  # of a short text: all kinds of query blocks, and few tokens


def most_tokens(config: BigBirdConfig) -> int:
    """Return the longest text that a model takes."""
    return min(config.max_encoder_length or default_length(config), config.max_position_embeddings)


def short_length(config: BigBirdConfig, blocks: int = _BLOCKS) -> int:
    """Return the length of a text that ends inside its last block, if the model takes as many blocks."""
    W = config.block_size
    return min(blocks * W - W // 3, most_tokens(config))


def words(config: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return ids of words, int32, none of which is the padding's or a separator's."""
    special = {config.pad_token_id, config.sep_token_id}
    known = [i for i in range(config.vocab_size) if i not in special] or [0]
    return rng.choice(np.array(known), size=shape).astype(np.int32)


def mixed(config: Any, rng: np.random.Generator, ends: list[int], length: int) -> Inputs:
    """Return ids alone, of texts with so many tokens each, and two separators in each that has room for them."""
    ids = words(config, rng, (len(ends), length))
    for b, end in enumerate(ends):
        if end > 3 and config.sep_token_id < config.vocab_size:
            ids[b, [min(end // 8 + 1, 40), end // 2 + 1]] = config.sep_token_id
        ids[b, max(1, end) :] = config.pad_token_id
    return {"input_ids": ids}


def seven(config: Any, rng: np.random.Generator) -> Inputs:
    """Return seven texts of mixed lengths: some end with a block, some within one, one is a single token."""
    W, L = config.block_size, short_length(config)
    ends = [L - 1, 1, W - 1, W, 4 * W, 2 * W + 1, L]
    return mixed(config, rng, [max(1, min(end, L)) for end in ends], L)


def masked(config: Any, rng: np.random.Generator) -> Inputs:
    """Return seven texts with everything given: a mask unlike the ids', types, and positions that count real tokens.

    Padded in front within a block, and by whole blocks; with a hole; ended by the mask alone; with single tokens
    hidden; with real tokens whose id is the padding's; with one real token.
    """
    W, L = config.block_size, short_length(config)
    ids, mask = words(config, rng, (7, L)), np.ones((7, L), np.int32)
    mask[0, : min(W + W // 2, L - 1)] = 0
    mask[1, : min(2 * W, L - 1)] = 0
    mask[2, W // 2 : min(2 * W + 1, L - 1)] = 0
    mask[3, min(3 * W + 2, L) :] = 0
    mask[4, 1:][rng.random(L - 1) < 0.3] = 0
    ids[5, 1:][rng.random(L - 1) < 0.3] = config.pad_token_id
    mask[6, :-1] = 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, config.type_vocab_size, ids.shape).astype(np.int32),
        "position_ids": counted(mask),
    }


def counted(mask_BL: np.ndarray) -> np.ndarray:
    """Return positions that count real tokens only, int32 [B, L]."""
    found: np.ndarray = (mask_BL.cumsum(axis=-1) - 1).clip(0).astype(np.int32)
    return found


def left_padded(config: Any, rng: np.random.Generator, length: int) -> Inputs:
    """Return two prompts, the first padded in front, with their mask."""
    ids, mask = words(config, rng, (2, length)), np.ones((2, length), np.int32)
    mask[0, : length // 3] = 0
    return {"input_ids": np.where(mask, ids, config.pad_token_id).astype(np.int32), "attention_mask": mask}
