"""The BigBird models that calibration runs on.

Legend: B batch, L length.
"""

from __future__ import annotations

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.given.inputs import Inputs
from parity.measure.calibration.cases import Size


class BigBirdSize(Size):
    """One size of BigBird."""

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

    def labels(self, config: BigBirdConfig, inputs: Inputs, seed: int, rng: np.random.Generator) -> Inputs:
        """Return labels for the head's loss; for tokens they count at two positions in three."""
        B, L = self.batch, self.length
        tokens_BL = rng.integers(0, config.vocab_size, (B, L))
        tokens_BL[:, ::3] = -100
        drawn = {  # by what a head's record calls its labels; all are drawn, so that a size's stay what they are
            "masked words, next sentence": {"labels": tokens_BL, "next_sentence_label": rng.integers(0, 2, B)},
            "masked words": {"labels": tokens_BL},
            "next words": {"labels": tokens_BL},
            "classes": {"labels": rng.integers(0, config.num_labels, B)},
            "choices": {"labels": rng.integers(0, 2, B)},
            "class of each token": {"labels": np.where(tokens_BL < 0, -100, tokens_BL % config.num_labels)},
            # behind the question, whose scores are masked
            "spans": {"start_positions": rng.integers(L // 4, L, B), "end_positions": rng.integers(L // 4, L, B)},
        }
        kind = config.family.heads[self.head].labels
        labels = drawn[kind] if kind in drawn else super().labels(config, inputs, seed, rng)
        return {
            name: values.astype(np.int32) if values.dtype.kind in "iu" else values for name, values in labels.items()
        }


# Every head, 2 to 12 layers, hidden 16 to 768, all blocks and kinds of attention; padded where there are two texts.
SIZES: dict[str, Size] = {
    "full-16": BigBirdSize("pretraining", 2, 16, 2, 64),
    "full-32": BigBirdSize("qa", 2, 32, 2, 64),
    "full-64-deep": BigBirdSize("qa", 12, 64, 4, 48),
    "full-48-deep": BigBirdSize("pretraining", 12, 48, 4, 40),
    "sparse-32": BigBirdSize("sequence-classification", 3, 32, 2, 216, sparse="transformers"),
    "sparse-64-deep": BigBirdSize("masked-lm", 12, 64, 4, 208, sparse="transformers", gradients=False),
    "original-128": BigBirdSize("token-classification", 4, 128, 4, 528, sparse="original", most_seeds=2),
    "sparse-256": BigBirdSize(
        "multiple-choice", 6, 256, 4, 400, block=32, sparse="transformers", batch=1, most_seeds=2
    ),
    "base-768": BigBirdSize(
        "pretraining", 2, 768, 12, 1024, block=64, sparse="original", batch=1, gradients=False, most_seeds=2
    ),
    "causal-64": BigBirdSize("causal-lm", 6, 64, 4, 40),
    "causal-256": BigBirdSize("causal-lm", 2, 256, 4, 24, gradients=False),
}
