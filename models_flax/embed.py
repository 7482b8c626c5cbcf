"""Embeddings of which only the rows that a call reads are cast.

torch's nn.Embedding does so by itself.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax import Array
from jax import numpy as jnp


class Embed(nn.Embed):
    """nn.Embed, which casts its whole table before it reads some rows, in the other order."""

    def __call__(self, ids: Any) -> Array:
        """Return the rows of ``ids`` [..., features] in ``dtype``; raises ValueError for ids that are no integers."""
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"ids are {ids.dtype}: expected integers")
        rows = jnp.take(self.embedding, ids, axis=0)
        return rows if self.dtype is None else rows.astype(self.dtype)
