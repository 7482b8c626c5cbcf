"""Inputs and weights that are hard on an implementation: each aims at something that seeded inputs rarely meet.

Every case brings its attention_mask, so that a token whose id is the padding's can be real. What a padded position
holds is a convention (docs/differences.md); which positions are compared is the caller's business.

Legend: B batch, L length, W block size.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family
from parity.given.inputs import Inputs

# A power of two, so that no weight is rounded; positions and types lose six bits beside such words.
WORD_FACTORS = {"large-norm": 64.0}


def adversarial_inputs(config: BigBirdConfig, length: int, seed: int) -> dict[str, Inputs]:
    """Return inputs by name of the case: input_ids, attention_mask and token_type_ids, int32 [B, L], L = ``length``.

    What the model's family does not take is left out; a decoder reads the text itself.

    one-token: a batch with a single real token in all but its first text. split-blocks: padding that begins, and
    padding that ends, inside a block. one-type: every token of the last type. one-id: the same token everywhere.
    vocabulary-ends: the lowest and the highest ids only. mixed-lengths: texts of 1, W - 1, W, W + 1 and L tokens. full,
    and large-norm, for words as many times as large as WORD_FACTORS says: no padding. Raises ValueError if ``length``
    is below 1 or above max_position_embeddings.
    """
    if not 1 <= length <= config.max_position_embeddings:
        raise ValueError(
            f"length is {length}, expected 1 .. {config.max_position_embeddings} (max_position_embeddings)"
        )
    made = {
        name: make(config, length, np.random.default_rng([seed, length, i]))
        for i, (name, make) in enumerate(_CASES.items())
    }
    own = config.family.inputs
    return {name: {key: x for key, x in inputs.items() if key in own} for name, inputs in made.items()}


def large_norm(
    weights: Mapping[str, np.ndarray], factor: float, family: Family | None = None
) -> Mapping[str, np.ndarray]:
    """Return canonical weights whose word embeddings are ``factor`` times as large; the others are not copied.

    The embeddings' LayerNorm then sees large numbers, among which positions and types are lost bit by bit, and the tied
    decoder gives large scores. family: whose weights they are; None: of the default one. Raises ValueError if there are
    no word embeddings, or if the product is not finite.
    """
    rows = (family or default_family()).rows
    name = next(row.name for row in rows if row.axes.split() == ["vocab", "hidden"])
    if name not in weights:
        raise ValueError(f"{name} is not among the weights, found {', '.join(sorted(weights)) or 'nothing'}")
    words = weights[name]
    with np.errstate(over="ignore"):
        scaled = (words * factor).astype(words.dtype)
    if not np.isfinite(scaled).all():
        raise ValueError(f"factor is {factor}, but {name} times it is beyond {words.dtype}: choose a smaller one")
    return ChainMap({name: scaled}, cast("dict[str, np.ndarray]", weights))


def _one_token(config: BigBirdConfig, L: int, rng: np.random.Generator) -> Inputs:
    return _of_spans(config, L, rng, [(0, L), (0, 1), (L - 1, L)])


def _split_blocks(config: BigBirdConfig, L: int, rng: np.random.Generator) -> Inputs:
    half = max(1, config.block_size // 2)
    last_block = (L - 1) // config.block_size * config.block_size
    inside = last_block - config.block_size + half if last_block else half
    return _of_spans(config, L, rng, [(0, max(1, min(L, inside))), (min(half, L - 1), L)])


def _one_type(config: BigBirdConfig, L: int, rng: np.random.Generator) -> Inputs:
    inputs = _full(config, L, rng)
    return inputs | {"token_type_ids": np.full_like(inputs["token_type_ids"], config.type_vocab_size - 1)}


def _one_id(config: BigBirdConfig, L: int, rng: np.random.Generator) -> Inputs:
    inputs = _full(config, L, rng)
    return inputs | {"input_ids": np.full_like(inputs["input_ids"], inputs["input_ids"][0, 0])}


def _vocabulary_ends(config: BigBirdConfig, L: int, rng: np.random.Generator) -> Inputs:
    inputs = _full(config, L, rng)
    ids = rng.choice([0, config.vocab_size - 1], size=(2, L)).astype(np.int32)
    ids[:, :2] = [0, config.vocab_size - 1][: min(2, L)]
    return inputs | {"input_ids": ids}


def _mixed_lengths(config: BigBirdConfig, L: int, rng: np.random.Generator) -> Inputs:
    W = config.block_size
    return _of_spans(config, L, rng, [(0, min(end, L)) for end in (1, max(1, W - 1), W, W + 1, L)])


def _full(config: BigBirdConfig, L: int, rng: np.random.Generator) -> Inputs:
    return _of_spans(config, L, rng, [(0, L), (0, L)])


_CASES: dict[str, Callable[[BigBirdConfig, int, np.random.Generator], Inputs]] = {
    "one-token": _one_token,
    "split-blocks": _split_blocks,
    "one-type": _one_type,
    "one-id": _one_id,
    "vocabulary-ends": _vocabulary_ends,
    "mixed-lengths": _mixed_lengths,
    "full": _full,
    "large-norm": _full,
}


def _of_spans(config: BigBirdConfig, L: int, rng: np.random.Generator, spans: list[tuple[int, int]]) -> Inputs:
    """Random words of random types; text b has real tokens from spans[b][0] to before spans[b][1]."""
    words = np.array([i for i in range(config.vocab_size) if i != config.pad_token_id] or [config.pad_token_id])
    shape = (len(spans), L)
    mask = np.zeros(shape, np.int32)
    for b, (start, end) in enumerate(spans):
        mask[b, start:end] = 1
    ids = np.where(mask, rng.choice(words, size=shape), config.pad_token_id)
    types = np.where(mask, rng.integers(0, config.type_vocab_size, shape), 0)
    return {
        "input_ids": ids.astype(np.int32),
        "attention_mask": mask,
        "token_type_ids": types.astype(np.int32),
    }
