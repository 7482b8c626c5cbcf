"""The keys and values that the decoder keeps between the tokens it writes.

Legend: B batch, N heads, M places for keys, K keys of the encoder, L new tokens, H head size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig


class DecoderCache(NamedTuple):
    """One layer's key and value [B, N, M, H], and those of the encoder's states [B, N, K, H], computed once.

    The first ``filled`` places hold tokens; the number of places is fixed.
    """

    key: Tensor
    value: Tensor
    cross_key: Tensor | None
    cross_value: Tensor | None
    filled: int

    def written(self, k_BNLH: Tensor, v_BNLH: Tensor) -> DecoderCache:
        """Return the cache with new keys and values; without gradients they are written in place."""
        end = self.filled + k_BNLH.shape[2]
        if torch.is_grad_enabled():
            key, value = (
                torch.cat((old[:, :, : self.filled], new, old[:, :, end:]), dim=2)
                for old, new in ((self.key, k_BNLH), (self.value, v_BNLH))
            )
            return self._replace(key=key, value=value, filled=end)
        self.key[:, :, self.filled : end], self.value[:, :, self.filled : end] = k_BNLH, v_BNLH
        return self._replace(filled=end)

    def taken(self, rows: Tensor) -> DecoderCache:
        """Return the cache of these rows; what comes of the encoder is the same for all beams of a text."""
        return self._replace(key=self.key[rows], value=self.value[rows])


def init_cache(
    config: BigBirdPegasusConfig,
    batch_size: int,
    max_length: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> tuple[DecoderCache, ...]:
    """Return an empty cache, one DecoderCache a layer, with room for max_length tokens.

    Raises ValueError where the position embeddings do not reach max_length.
    """
    if not 1 <= max_length <= config.max_position_embeddings:
        raise ValueError(
            f"max_length is {max_length}, expected 1 .. {config.max_position_embeddings} (max_position_embeddings)"
        )
    shape = (batch_size, config.num_attention_heads, max_length, config.head_dim)
    return tuple(
        DecoderCache(
            torch.zeros(shape, dtype=dtype, device=device),
            torch.zeros(shape, dtype=dtype, device=device),
            None,
            None,
            0,
        )
        for _ in range(config.decoder_layers)
    )


def cached_length(past_key_values: tuple[DecoderCache, ...] | None) -> int:
    """Return how many tokens a cache holds; None holds 0."""
    return 0 if past_key_values is None else past_key_values[0].filled
