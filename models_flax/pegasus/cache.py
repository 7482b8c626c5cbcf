"""The keys and values that the decoder keeps between the tokens it writes.

Legend: B batch, N heads, M places for keys, K keys of the encoder, L new tokens, H head size.
"""

from __future__ import annotations

from typing import NamedTuple

from jax import Array, lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig


class DecoderCache(NamedTuple):
    """One layer's key and value [B, N, M, H], and those of the encoder's states [B, N, K, H], computed once.

    The first ``filled`` (int32 scalar) places hold tokens. The number of places is fixed, so that every step runs the
    same compiled program.
    """

    key: Array
    value: Array
    cross_key: Array | None
    cross_value: Array | None
    filled: Array

    def written(self, k_BNLH: Array, v_BNLH: Array) -> DecoderCache:
        """Return the cache with new keys and values."""
        key, value = (
            lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), self.filled, axis=2)
            for old, new in ((self.key, k_BNLH), (self.value, v_BNLH))
        )
        return self._replace(key=key, value=value, filled=self.filled + k_BNLH.shape[2])

    def taken(self, rows: Array) -> DecoderCache:
        """Return the cache of these rows; what comes of the encoder is the same for all beams of a text."""
        return self._replace(key=self.key[rows], value=self.value[rows])


def init_cache(
    config: BigBirdPegasusConfig, batch_size: int, max_length: int, dtype: DTypeLike = jnp.float32
) -> tuple[DecoderCache, ...]:
    """Return an empty cache, one DecoderCache a layer, with room for max_length tokens.

    Raises ValueError where the position embeddings do not reach max_length.
    """
    if not 1 <= max_length <= config.max_position_embeddings:
        raise ValueError(
            f"max_length is {max_length}, expected 1 .. {config.max_position_embeddings} (max_position_embeddings)"
        )
    empty = jnp.zeros((batch_size, config.num_attention_heads, max_length, config.head_dim), dtype)
    filled = jnp.zeros((), jnp.int32)
    return tuple(DecoderCache(empty, empty, None, None, filled) for _ in range(config.decoder_layers))


def cached_length(past_key_values: tuple[DecoderCache, ...] | None) -> Array | int:
    """Return how many tokens a cache holds, under jit a traced number; None holds 0."""
    return 0 if past_key_values is None else past_key_values[0].filled
