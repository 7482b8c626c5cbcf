"""Full attention: every query meets every key that its mask allows.

Legend: B batch, L queries, N heads, H head size, K keys. A mask named BL is [B, K] where there are more keys than
queries (a cache, cross-attention), and may be [B, L, K].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigbird_port.sparse.formulation import formulation
from models_torch.attention import plain


def full_attention(
    q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor, mask_BL: Tensor, causal: bool, dropout: nn.Module | None = None
) -> Tensor:
    """Every query attends to every key that is not padding (``causal``: and does not lie ahead); [B, L, N, H].

    The queries are the last of the keys. A mask [B, L, K] says alone who attends to whom, ``causal`` or not. Some
    queries at a time, as the device's formulation has it.
    """
    L, K = q_BNLH.shape[2], k_BNLH.shape[2]

    def some_queries(some: slice) -> Tensor:
        allowed = mask_BL[:, None, some] if mask_BL.ndim == 3 else mask_BL[:, None, None, :]
        if causal and mask_BL.ndim == 2:
            seen = torch.ones(some.stop - some.start, K, dtype=torch.bool, device=mask_BL.device)
            allowed = allowed & seen.tril(K - L + some.start)
        return plain.attend(q_BNLH[:, :, some], k_BNLH, v_BNLH, plain.mask_bias(allowed, q_BNLH.dtype), dropout)

    step = _queries_at_once(q_BNLH, K)
    if step == L:
        return some_queries(slice(0, L)).transpose(1, 2)
    context_BNLH = q_BNLH.new_empty(*q_BNLH.shape[:3], v_BNLH.shape[-1])  # parts that wait would scatter the scores
    for start in range(0, L, step):
        some = slice(start, min(start + step, L))
        context_BNLH[:, :, some] = some_queries(some)
    return context_BNLH.transpose(1, 2)


def _queries_at_once(q_BNLH: Tensor, K: int) -> int:
    """How many queries of all heads and texts attend at once; all where a compiler chooses."""
    B, N, L, _ = q_BNLH.shape
    limit = None if torch.compiler.is_compiling() else formulation("torch", q_BNLH.device.type).scores_at_once
    return L if limit is None else max(1, min(L, limit // (B * N * K)))
