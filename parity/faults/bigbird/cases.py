"""The small BigBird models that faults are put into."""

from __future__ import annotations

from typing import Any

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.faults.setup import Case

# Sharp attention (kernels half as wide again as keep activations at 1) and small embeddings, as trained ones are.
_SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 2080,
    "initializer_range": 1.5 * 32**-0.5,
    "block_size": 16,
    "num_random_blocks": 3,
    "num_labels": 3,
    "sep_token_id": 5,
}
_EMBEDDINGS = 0.02  # their standard deviation


def _case(length: int, batch: int = 2, **fields: Any) -> Case:
    config = BigBirdConfig(**(_SMALL | fields))
    return Case(length, config, batch, {"embeddings.": _EMBEDDINGS / config.initializer_range})


# padded: shorter than the pattern, ends inside a block, and rescales; paper, long: the paper's plan, where a block may
# be listed twice; short: full attention.
CASES: dict[str, Case] = {
    "padded": _case(521, max_encoder_length=560, rescale_embeddings=True),
    "paper": _case(1024, max_encoder_length=1024, num_hidden_layers=1),
    "long": _case(2048, 1, max_encoder_length=2048, num_hidden_layers=1, num_attention_heads=2),
    "short": _case(40),
}
