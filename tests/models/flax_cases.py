"""Tiny models and inputs of every head for the Flax tests.

Legend: B batch, C choices, L length.
"""

from __future__ import annotations

import jax
import numpy as np

import models_flax
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS

TINY = BigBirdConfig(
    vocab_size=70,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=256,
    block_size=4,
    num_random_blocks=1,
    initializer_range=0.3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    num_labels=3,
    random_blocks="transformers",
)
ONE = TINY.replace(num_hidden_layers=1)  # where the number of layers does not matter
FULL = TINY.replace(attention_type="original_full")
SPARSE = TINY.replace(random_blocks="original", block_size=32, num_random_blocks=3, max_position_embeddings=1024)
DECODER = FULL.replace(is_decoder=True)
CROSS = DECODER.replace(add_cross_attention=True)
LENGTH = 36  # nine blocks of four: block-sparse attention with one random block


def model_of(head: str, config: BigBirdConfig = TINY, **options):
    return getattr(models_flax, HEADS[head].flax_class_name)(config, **options)


def make_ids(shape: tuple[int, ...], seed: int = 0, vocabulary: int = 64) -> np.ndarray:
    """Ids without padding and separators."""
    return np.random.default_rng(seed).integers(1, vocabulary, shape).astype(np.int32)


def make_inputs(head: str, length: int = LENGTH, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Ids, mask, types and positions of a batch with a padded text and a question of seven tokens."""
    shape = (batch, 3, length) if head == "multiple-choice" else (batch, length)
    rng = np.random.default_rng(seed + 1)
    ids = make_ids(shape, seed)
    ids[..., 6] = 66
    mask = np.ones(shape, np.int32)
    mask[-1, ..., length - 9 :] = 0
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, shape).astype(np.int32),
        "position_ids": np.broadcast_to(np.arange(length, dtype=np.int32)[::-1], shape).copy(),
    }


def scores_of(output) -> dict[str, jax.Array]:
    names = ("last_hidden_state", "pooler_output", "prediction_logits", "seq_relationship_logits", "logits")
    names += ("start_logits", "end_logits")
    return {name: getattr(output, name) for name in names if getattr(output, name, None) is not None}


def assert_trees_close(ours, theirs, atol: float) -> None:
    flat_ours, tree = jax.tree.flatten_with_path(ours)
    flat_theirs, other_tree = jax.tree.flatten_with_path(theirs)
    assert tree == other_tree
    for (path, x), (_, y) in zip(flat_ours, flat_theirs, strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))
