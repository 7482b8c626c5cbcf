"""The BigBird-Pegasus models that calibration runs on.

Legend: B batch, L length of the texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from parity.measure.calibration.cases import Size


@dataclass(frozen=True)
class PegasusSize(Size):
    """One size of BigBird-Pegasus. released: as the released models of one kind, prenorm; else of the other, coupled.

    layers: on each side. written: tokens that the decoder reads.
    """

    released: bool = True
    written: int = 32

    def config(self) -> BigBirdPegasusConfig:
        """The configuration; weights are of such a size that activations are about 1, as in a trained model."""
        coupled = not self.released and self.head != "causal-lm"  # a decoder alone is not coupled
        return BigBirdPegasusConfig(
            vocab_size=211,
            d_model=self.hidden,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            encoder_ffn_dim=4 * self.hidden,
            decoder_ffn_dim=4 * self.hidden,
            max_position_embeddings=1024,
            max_decoder_length=self.written,
            block_size=self.block,
            init_std=self.hidden**-0.5,
            dropout=0.0,
            attention_type="block_sparse" if self.sparse else "original_full",
            random_blocks="transformers" if self.sparse == "transformers" else "original",
            max_encoder_length=self.length if self.sparse == "original" else None,
            num_labels=3,
            norm_type="prenorm" if self.released else "postnorm",
            couple_encoder_decoder=coupled,
            # where relu has its kink a gradient may fall on either side, which is for parity/measure/rounding.py
            activation_function="relu" if self.released and not self.gradients else "gelu_new",
            use_bias=not self.released,
            scale_embedding=self.released,
        ).for_head(self.head)


_SUMMARIES = "conditional-generation"
# Every head, both kinds of released models, 2 to 12 layers on each side, hidden 16 to 768; padded with two texts.
SIZES: dict[str, Size] = {
    "full-16": PegasusSize(_SUMMARIES, 2, 16, 2, 64),
    "full-32": PegasusSize("qa", 2, 32, 2, 64, released=False),
    "full-64-deep": PegasusSize(_SUMMARIES, 8, 64, 4, 48),
    "coupled-48-deep": PegasusSize(_SUMMARIES, 8, 48, 4, 40, released=False),
    "sparse-32": PegasusSize("sequence-classification", 3, 32, 2, 216, sparse="transformers"),
    "coupled-32": PegasusSize(_SUMMARIES, 3, 32, 2, 216, sparse="transformers", released=False),
    "original-128": PegasusSize(_SUMMARIES, 4, 128, 4, 528, sparse="original", most_seeds=2),
    "base-768": PegasusSize(
        _SUMMARIES, 2, 768, 12, 1024, block=64, sparse="original", batch=1, gradients=False, most_seeds=2
    ),
    "relu-64-deep": PegasusSize(_SUMMARIES, 6, 64, 4, 48, gradients=False),
    "causal-64": PegasusSize("causal-lm", 6, 64, 4, 40),
    "causal-48": PegasusSize("causal-lm", 3, 48, 4, 40, released=False),
}
