"""The small BigBird-Pegasus models that faults are put into."""

from __future__ import annotations

from typing import Any

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from parity.faults.setup import Case

# Sharp attention and small embeddings, as BigBird's cases have them; block-sparse on short texts.
_SMALL: dict[str, Any] = {
    "vocab_size": 53,
    "d_model": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "max_decoder_length": 12,
    "init_std": 1.5 * 32**-0.5,
    "block_size": 4,
    "num_random_blocks": 1,
    "random_blocks": "transformers",
    "activation_function": "relu",
}
_COUPLED: dict[str, Any] = {
    "norm_type": "postnorm",
    "couple_encoder_decoder": True,
    "activation_function": "gelu_new",
    "use_bias": True,
    "scale_embedding": False,
}


def _case(length: int, **fields: Any) -> Case:
    config = BigBirdPegasusConfig(**(_SMALL | fields))
    return Case(length, config, 2, {"embeddings.": 0.1 / config.init_std})


_FEW_WORDS: dict[str, Any] = {"vocab_size": 11, "encoder_layers": 1, "decoder_layers": 1}
# padded: as the released models of one kind, with a text that ends inside a block; coupled: as those of the other;
# endings: its summaries end; endless: they do not.
CASES: dict[str, Case] = {
    "padded": _case(41),
    "coupled": _case(41, **_COUPLED),
    "endings": _case(17, **_FEW_WORDS, eos_token_id=8),
    "endless": _case(17, **_FEW_WORDS),
}
