"""The keys and values that a decoder keeps between the tokens it writes.

Legend: B batch, N heads, M places for keys, K keys of the encoder, H head size.
"""

from __future__ import annotations

from typing import NamedTuple

from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.bigbird.config import BigBirdConfig


class LayerCache(NamedTuple):
    """One layer's key and value [B, N, M, H]; cross_key and cross_value: those of the encoder's states, if any.

    The first ``filled`` (int32 scalar) places hold tokens; mask (bool [B, M]) is False where these are padding. The
    number of places is fixed, so that every step runs the same compiled program.
    """

    key: Array
    value: Array
    cross_key: Array | None
    cross_value: Array | None
    mask: Array
    filled: Array


def init_cache(
    config: BigBirdConfig, batch_size: int, max_length: int, dtype: DTypeLike = jnp.float32
) -> tuple[LayerCache, ...]:
    """Return an empty cache, one LayerCache a layer, with room for max_length tokens.

    Raises ValueError where the position embeddings do not reach max_length.
    """
    if not 1 <= max_length <= config.max_position_embeddings:
        raise ValueError(
            f"max_length is {max_length}, expected 1 .. {config.max_position_embeddings} (max_position_embeddings)"
        )
    empty = jnp.zeros((batch_size, config.num_attention_heads, max_length, config.head_dim), dtype)
    mask, filled = jnp.zeros((batch_size, max_length), bool), jnp.zeros((), jnp.int32)
    return tuple(LayerCache(empty, empty, None, None, mask, filled) for _ in range(config.num_hidden_layers))


def cached_length(past_key_values: tuple[LayerCache, ...] | None) -> Array | int:
    """Return how many tokens a cache holds, under jit a traced number; None holds 0."""
    return 0 if past_key_values is None else past_key_values[0].filled
