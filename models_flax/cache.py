"""The keys and values that a decoder keeps; models_flax.bigbird.cache has them."""

from models_flax.bigbird.cache import LayerCache, cached_length, init_cache

__all__ = ["LayerCache", "cached_length", "init_cache"]
