"""The keys and values that a decoder keeps; models_torch.bigbird.cache has them."""

from models_torch.bigbird.cache import LayerCache, cached_length, init_cache

__all__ = ["LayerCache", "cached_length", "init_cache"]
