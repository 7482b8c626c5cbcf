"""The keys and values that a decoder keeps between the tokens it writes.

Legend: B batch, N heads, K keys so far, H head size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bigbird_port.config import BigBirdConfig


class LayerCache(NamedTuple):
    """One layer's key and value [B, N, K, H]; cross_key and cross_value: those of the encoder's states, if any."""

    key: Tensor
    value: Tensor
    cross_key: Tensor | None = None
    cross_value: Tensor | None = None


def init_cache(
    config: BigBirdConfig,
    batch_size: int,
    max_length: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> tuple[LayerCache, ...]:
    """Return an empty cache, one LayerCache a layer; it grows with every token, so no room for max_length is taken.

    Raises ValueError where the position embeddings do not reach max_length.
    """
    if not 1 <= max_length <= config.max_position_embeddings:
        raise ValueError(
            f"max_length is {max_length}, expected 1 .. {config.max_position_embeddings} (max_position_embeddings)"
        )
    empty = torch.zeros(batch_size, config.num_attention_heads, 0, config.head_dim, dtype=dtype, device=device)
    return tuple(LayerCache(empty, empty) for _ in range(config.num_hidden_layers))


def cached_length(past_key_values: tuple[LayerCache, ...] | None) -> int:
    """Return how many tokens a cache holds; None holds 0."""
    return 0 if past_key_values is None else past_key_values[0].key.shape[2]
