"""Block-sparse attention of all texts at once, where their number is not known: an exported program runs on any.

Elsewhere one text after the other is faster (gathering.py), because what a query block needs stays in the cache. Flax
has no counterpart: it maps over texts and attention heads, however many there are.

Legend: B batch, L length, N heads, H head size, W block size, n blocks in the sequence, Q query blocks with a key list
of their own, S slots in such a list, K keys of a list, G rows of global blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models_torch.attention import plain
from models_torch.attention.gathering import count_bias
from models_torch.attention.rows import Row


def is_known(size: int) -> bool:
    """Whether a size is a number, and not one that an exported program leaves open."""
    return not isinstance(size, torch.SymInt)


def every_text(
    q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor, mask_BL: Tensor, blocks_NQS: Tensor, counts_NQS: Tensor, row: Row
) -> Tensor:
    """Block-sparse attention of whole blocks, [B, L, N, H]; each text fills its row. blocks, counts: KeyLists's."""
    (text,), W = row.in_order(), row.block_size
    bias_BL = plain.mask_bias(mask_BL, q_BNLH.dtype)
    q_BNGH = torch.cat([q_BNLH[:, :, rows] for rows in text.global_rows], dim=2)
    global_BNGH = plain.attend(q_BNGH, k_BNLH, v_BNLH, bias_BL[:, None, None])
    parts = [global_BNGH[:, :, :W], global_BNGH[:, :, W:]]
    N, Q, S = blocks_NQS.shape
    if Q:
        n = mask_BL.shape[1] // W
        numbers = (blocks_NQS + torch.arange(N, device=blocks_NQS.device)[:, None, None] * n).flatten()
        k_BNQKH, v_BNQKH = (
            x.unflatten(2, (n, W)).flatten(1, 2).index_select(1, numbers).unflatten(1, (N, Q, S)).flatten(3, 4)
            for x in (k_BNLH, v_BNLH)
        )
        bias_BNQSW = bias_BL.unflatten(1, (n, W)).index_select(1, blocks_NQS.flatten()).unflatten(1, (N, Q, S))
        bias_BNQ1K = (bias_BNQSW + count_bias(counts_NQS, bias_BL.dtype)[..., None]).flatten(3)[:, :, :, None]
        q_BNQWH = q_BNLH[:, :, W : (Q + 1) * W].unflatten(2, (Q, W))
        parts.insert(1, plain.attend(q_BNQWH, k_BNQKH, v_BNQKH, bias_BNQ1K).flatten(2, 3))
    return (torch.cat(parts, dim=2) * mask_BL[:, None, :, None]).transpose(1, 2)
