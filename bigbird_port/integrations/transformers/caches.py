"""What a decoder keeps, between transformers' caches, which grow in place, and the product's, which are values."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from models_torch.bigbird.cache import LayerCache
from models_torch.pegasus.cache import DecoderCache


def entered(past: Any, tokens: int, fixed: bool) -> Any:
    """Return a cache of transformers as the product's; None where nothing is in it yet.

    fixed: the product's has a fixed number of places, so there must be some for ``tokens`` more.
    """
    if not isinstance(past, Cache) or past.get_seq_length() == 0:
        return None if isinstance(past, Cache) else past
    own = past.self_attention_cache if isinstance(past, EncoderDecoderCache) else past
    layers = [(layer.keys, layer.values) for layer in own.layers]
    if not fixed:
        return tuple(LayerCache(*layer) for layer in layers)
    cross: list[tuple[Any, Any]] = [(None, None)] * len(layers)
    if isinstance(past, EncoderDecoderCache) and past.cross_attention_cache.get_seq_length():
        cross = [(layer.keys, layer.values) for layer in past.cross_attention_cache.layers]
    filled = past.get_seq_length()
    grown = [(_with_room(keys, tokens), _with_room(values, tokens)) for keys, values in layers]
    return tuple(DecoderCache(*grown[i], *cross[i], filled) for i in range(len(layers)))


def left(past: Any, found: tuple[Any, ...]) -> Any:
    """Return a cache of transformers (None: a new one) into which is written what the product's has more."""
    if not isinstance(past, Cache):
        crossed = isinstance(found[0], DecoderCache) and found[0].cross_key is not None
        past = EncoderDecoderCache(DynamicCache(), DynamicCache()) if crossed else DynamicCache()
    both = isinstance(past, EncoderDecoderCache)
    own = past.self_attention_cache if both else past
    before = own.get_seq_length()
    for i, layer in enumerate(found):
        end = layer.filled if isinstance(layer, DecoderCache) else layer.key.shape[2]
        own.update(layer.key[:, :, before:end], layer.value[:, :, before:end], i)
        if both and layer.cross_key is not None and not past.is_updated.get(i):
            past.cross_attention_cache.update(layer.cross_key, layer.cross_value, i)
            past.is_updated[i] = True
    return past


def _with_room(x_BNKH: torch.Tensor, tokens: int) -> torch.Tensor:
    B, N, _, H = x_BNKH.shape
    return torch.cat((x_BNKH, x_BNKH.new_zeros(B, N, tokens, H)), dim=2)
