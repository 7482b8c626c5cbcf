"""Attention probabilities as a dense matrix, for looking at them.

Legend: B batch, N heads, L length, K keys, H head size.
"""

from __future__ import annotations

from jax import Array
from jax import numpy as jnp

from models_flax.attention.block_sparse import Lists, block_sparse_attention
from models_flax.attention.full import full_attention


def dense_probabilities(
    q_BNLH: Array, k_BNKH: Array, mask_BL: Array, lists: Lists | None, block_size: int, causal: bool = False
) -> Array:
    """Return [B, N, L, K]: what each query gives to each key, before dropout; ``lists`` None is full attention.

    Repeated blocks are summed. Rows of real queries sum to 1; block-sparse rows of padded queries are 0.
    """
    # The context of one-hot values is the probabilities themselves.
    B, N, K, _ = k_BNKH.shape
    one_hot_BNKK = jnp.broadcast_to(jnp.eye(K, dtype=q_BNLH.dtype), (B, N, K, K))
    if lists is None:
        return full_attention(q_BNLH, k_BNKH, one_hot_BNKK, mask_BL, causal).swapaxes(1, 2)
    return block_sparse_attention(q_BNLH, k_BNKH, one_hot_BNKK, mask_BL, lists, block_size).swapaxes(1, 2)
