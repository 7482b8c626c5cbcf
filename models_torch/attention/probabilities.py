"""Attention probabilities as a dense matrix, for looking at them.

Legend: B batch, N heads, L length, K keys, H head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models_torch.attention.block_sparse import block_sparse_attention
from models_torch.attention.full import full_attention
from models_torch.attention.lists import KeyLists


def dense_probabilities(
    q_BNLH: Tensor, k_BNKH: Tensor, mask_BL: Tensor, lists: KeyLists | None, block_size: int, causal: bool = False
) -> Tensor:
    """Return [B, N, L, K]: what each query gives to each key, before dropout; ``lists`` None is full attention.

    Repeated blocks are summed. Rows of real queries sum to 1; block-sparse rows of padded queries are 0.
    """
    # The context of one-hot values is the probabilities themselves.
    B, N, K, _ = k_BNKH.shape
    one_hot_BNKK = torch.eye(K, dtype=q_BNLH.dtype, device=q_BNLH.device).expand(B, N, K, K)
    if lists is None:
        return full_attention(q_BNLH, k_BNKH, one_hot_BNKK, mask_BL, causal).transpose(1, 2)
    return block_sparse_attention(q_BNLH, k_BNKH, one_hot_BNKK, mask_BL, lists, block_size).transpose(1, 2)
