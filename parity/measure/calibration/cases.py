"""What calibration runs on: sizes, weights, inputs and labels, all from seeds.

Legend: B batch, L length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import weights_of
from parity.given.inputs import Inputs, for_head, make_inputs
from parity.measure.losses import make_labels


@dataclass(frozen=True)
class Size:
    """One size of model and input, for one head.

    sparse: "original" for its random blocks (longer than 512 tokens), "transformers" for those of transformers, which
    exist for shorter texts, None for full attention. gradients: whether to run backwards, too. most_seeds: how
    many of the seeds to run, as large sizes take long (each has more elements instead).
    """

    head: str
    layers: int
    hidden: int
    heads: int
    length: int
    block: int = 16
    sparse: str | None = None
    batch: int = 2
    gradients: bool = True
    most_seeds: int = 4

    def config(self) -> BigBirdConfig:
        """The configuration; weights are of such a size that activations are about 1, as in a trained model."""
        return BigBirdConfig(
            vocab_size=211,
            hidden_size=self.hidden,
            num_attention_heads=self.heads,
            num_hidden_layers=self.layers,
            intermediate_size=4 * self.hidden,
            max_position_embeddings=1024,
            block_size=self.block,
            initializer_range=self.hidden**-0.5,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attention_type="block_sparse" if self.sparse else "original_full",
            random_blocks="transformers" if self.sparse == "transformers" else "original",
            max_encoder_length=self.length if self.sparse == "original" else None,
            num_labels=3,
        )


# Every head, 2 to 12 layers, hidden 16 to 768, all blocks and kinds of attention; padded where there are two texts.
SIZES: dict[str, Size] = {
    "full-16": Size("pretraining", 2, 16, 2, 64),
    "full-32": Size("qa", 2, 32, 2, 64),
    "full-64-deep": Size("qa", 12, 64, 4, 48),
    "full-48-deep": Size("pretraining", 12, 48, 4, 40),
    "sparse-32": Size("sequence-classification", 3, 32, 2, 216, sparse="transformers"),
    "sparse-64-deep": Size("masked-lm", 12, 64, 4, 208, sparse="transformers", gradients=False),
    "original-128": Size("token-classification", 4, 128, 4, 528, sparse="original", most_seeds=2),
    "sparse-256": Size("multiple-choice", 6, 256, 4, 400, block=32, sparse="transformers", batch=1, most_seeds=2),
    "base-768": Size(
        "pretraining", 2, 768, 12, 1024, block=64, sparse="original", batch=1, gradients=False, most_seeds=2
    ),
    "causal-64": Size("causal-lm", 6, 64, 4, 40),
    "causal-256": Size("causal-lm", 2, 256, 4, 24, gradients=False),
}


@dataclass(frozen=True)
class Case:
    """A size with everything drawn from one seed: canonical float32 weights, inputs, and labels."""

    name: str
    size: Size
    seed: int
    config: BigBirdConfig
    weights: dict[str, np.ndarray]
    inputs: Inputs
    labels: Inputs

    @property
    def where(self) -> str:
        """The case, for people."""
        return f"{self.name}, seed {self.seed}"


def make_case(name: str, seed: int, size: Size | None = None) -> Case:
    """Draw everything of one case; size: None is the one of that name in SIZES."""
    size = size or SIZES[name]
    config = size.config()
    rows = {row.name: row for side in ("torch", "flax") for row in weights_of(config, size.head, side)}
    rng = np.random.default_rng([seed, *name.encode()])
    weights = {}
    for row in rows.values():
        value = initial_value(row, config, seed)
        if row.init != "normal":  # all ones or zeros would leave a part of the arithmetic out
            value = value + rng.normal(0, 0.1, value.shape).astype(np.float32)
        weights[row.name] = value
    inputs = for_head(make_inputs(config, size.batch, size.length, seed), size.head, config)
    return Case(name, size, seed, config, weights, inputs, _labels(config, size, inputs, seed, rng))


def _labels(config: BigBirdConfig, size: Size, inputs: Inputs, seed: int, rng: np.random.Generator) -> Inputs:
    B, L = size.batch, size.length
    tokens_BL = rng.integers(0, config.vocab_size, (B, L))
    tokens_BL[:, ::3] = -100
    drawn = {  # by what a head's record calls its labels; all are drawn, so that a size's stay what they are
        "pretraining": {"labels": tokens_BL, "next_sentence_label": rng.integers(0, 2, B)},
        "masked words": {"labels": tokens_BL},
        "next words": {"labels": tokens_BL},
        "classes": {"labels": rng.integers(0, config.num_labels, B)},
        "choices": {"labels": rng.integers(0, 2, B)},
        "class of each token": {"labels": np.where(tokens_BL < 0, -100, tokens_BL % config.num_labels)},
        # behind the question, whose scores are masked
        "spans": {"start_positions": rng.integers(L // 4, L, B), "end_positions": rng.integers(L // 4, L, B)},
    }
    kind = config.family.heads[size.head].labels
    labels = drawn[kind] if kind in drawn else make_labels(config, size.head, inputs, seed)
    return {name: values.astype(np.int32) if values.dtype.kind in "iu" else values for name, values in labels.items()}
