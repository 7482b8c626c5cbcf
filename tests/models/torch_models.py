"""Tiny torch models and inputs for the tests of the torch twin."""

from __future__ import annotations

import numpy as np
import torch

import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS

VOCABULARY = 90
TINY = BigBirdConfig(
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=640,
    block_size=16,
    initializer_range=0.3,
    num_labels=3,
    random_blocks="transformers",  # sparse from 177 tokens on, so that the tests can be small
)
FULL = TINY.replace(attention_type="original_full")
DECODER = FULL.replace(is_decoder=True)


def model_class(head):
    return getattr(models_torch, HEADS[head].class_name)


def random_ids(batch, length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(3, 60, (batch, length)))


def padded(batch, length, seed=0):
    """Ids whose texts but the first end early, and their mask."""
    ids = random_ids(batch, length, seed)
    for b in range(1, batch):
        ids[b, length - 7 * b :] = 0
    return ids, (ids != 0).long()


def labels_for(head, batch, length, seed=1):
    """Labels of every kind that a head takes; some are -100."""
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy(rng.integers(0, VOCABULARY, (batch, length)))
    tokens[:, ::3] = -100
    classes = torch.from_numpy(rng.integers(0, 3, (batch,)))
    return {
        "base": {},
        "pretraining": {"labels": tokens, "next_sentence_label": classes % 2},
        "masked-lm": {"labels": tokens},
        "causal-lm": {"labels": tokens},
        "sequence-classification": {"labels": classes},
        "multiple-choice": {"labels": classes},
        "token-classification": {"labels": torch.where(tokens < 0, tokens, tokens % 3)},
        "qa": {"start_positions": classes + 20, "end_positions": classes + 30},
    }[head]
