"""The keys and values that a decoder keeps between the tokens it writes.

Legend: B batch, N heads, K keys so far, H head size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

from bigbird_port.families.bigbird.config import BigBirdConfig


class LayerCache(tuple[Tensor, ...]):
    """One layer's key and value [B, N, K, H]; cross_key and cross_value: those of the encoder's states, if any.

    It is a tuple of these two or four tensors, and is made of them, or of one iterable that yields them.
    """

    __slots__ = ()

    def __new__(
        cls,
        key: Tensor | Iterable[Tensor],
        value: Tensor | None = None,
        cross_key: Tensor | None = None,
        cross_value: Tensor | None = None,
    ) -> Self:
        given: Iterable[Any] = key if value is None else (key, value, cross_key, cross_value)
        tensors = tuple(x for x in given if x is not None)
        if len(tensors) not in (2, 4):
            raise ValueError(f"a LayerCache holds key, value and maybe cross_key, cross_value, found {len(tensors)}")
        return super().__new__(cls, tensors)

    @property
    def key(self) -> Tensor:
        """The keys of the tokens so far."""
        return self[0]

    @property
    def value(self) -> Tensor:
        """The values of the tokens so far."""
        return self[1]

    @property
    def cross_key(self) -> Tensor | None:
        """The keys of the encoder's states."""
        return self[2] if len(self) == 4 else None

    @property
    def cross_value(self) -> Tensor | None:
        """The values of the encoder's states."""
        return self[3] if len(self) == 4 else None


register_pytree_node(LayerCache, lambda cache: (list(cache), None), lambda tensors, _: LayerCache(tensors))


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
