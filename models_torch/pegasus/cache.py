"""The keys and values that the decoder keeps between the tokens it writes.

Legend: B batch, N heads, M places for keys, K keys of the encoder, L new tokens, H head size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_torch.bigbird.tracing import is_traced


class DecoderCache(tuple[Tensor, ...]):
    """One layer's key and value [B, N, M, H], and those of the encoder's states [B, N, K, H], computed once.

    The first ``filled`` places hold tokens; the number of places is fixed. It is a tuple of these two or four tensors
    and ``filled`` as a scalar, and is made of them, or of one iterable that yields them.
    """

    _filled: int

    def __new__(
        cls,
        key: Tensor | Iterable[Tensor],
        value: Tensor | None = None,
        cross_key: Tensor | None = None,
        cross_value: Tensor | None = None,
        filled: int = 0,
    ) -> Self:
        given: Iterable[Any] = key if value is None else (key, value, cross_key, cross_value, torch.tensor(filled))
        tensors = tuple(x for x in given if x is not None)
        if len(tensors) not in (3, 5):
            raise ValueError(f"a DecoderCache has 2 or 4 tensors and how many places are taken, found {len(tensors)}")
        self = super().__new__(cls, tensors)
        if value is not None:  # a number that needs not be read from a tensor
            self._filled = filled
        return self

    @property
    def key(self) -> Tensor:
        """The keys of the decoder's tokens."""
        return self[0]

    @property
    def value(self) -> Tensor:
        """The values of the decoder's tokens."""
        return self[1]

    @property
    def cross_key(self) -> Tensor | None:
        """The keys of the encoder's states."""
        return self[2] if len(self) == 5 else None

    @property
    def cross_value(self) -> Tensor | None:
        """The values of the encoder's states."""
        return self[3] if len(self) == 5 else None

    @property
    def filled(self) -> int:
        """How many places hold tokens."""
        return self.__dict__["_filled"] if "_filled" in self.__dict__ else int(self[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (tuple(self),)

    def _asdict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("key", "value", "cross_key", "cross_value", "filled")}

    def _replace(self, **changes: Any) -> DecoderCache:
        return DecoderCache(**{**self._asdict(), **changes})

    def written(self, k_BNLH: Tensor, v_BNLH: Tensor) -> DecoderCache:
        """Return the cache with new keys and values; without gradients they are written in place."""
        end = self.filled + k_BNLH.shape[2]
        if torch.is_grad_enabled() or is_traced():
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


register_pytree_node(DecoderCache, lambda cache: (list(cache), None), lambda tensors, _: DecoderCache(tensors))


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
