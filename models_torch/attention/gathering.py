"""Block-sparse attention of whole blocks as one gather, some heads and query blocks at a time.

Legend: B batch, L length, N heads, H head size, W block size, n blocks in the sequence, Q query blocks with a key list
of their own, S slots in such a list, M heads and C query blocks at once, X = M x C, K keys, G rows of global blocks.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from models_torch.attention import plain
from models_torch.attention.rows import Row


def every_head(q: Tensor, k: Tensor, v: Tensor, mask_BL: Tensor, blocks: Tensor, counts: Tensor, row: Row) -> Tensor:
    """Block-sparse attention of whole blocks, [B, L, N, H]; blocks, counts: KeyLists's."""
    return join_heads(
        [_some_heads(q[b, h], k[b, h], v[b, h], mask_BL[b], blocks[h], counts[h], row) for h in row.heads(q.shape[1])]
        for b in range(len(q))
    )


def join_heads(batch: Iterable[list[Tensor]]) -> Tensor:
    """[B, L, N, H], copied once where B is 1, from some heads at a time [M, L, H]."""
    texts = [torch.cat([x_MLH.transpose(0, 1) for x_MLH in heads], dim=1) for heads in batch]
    return texts[0][None] if len(texts) == 1 else torch.stack(texts)


def _some_heads(
    q_MLH: Tensor, k_MLH: Tensor, v_MLH: Tensor, mask_L: Tensor, blocks_MQS: Tensor, counts_MQS: Tensor, row: Row
) -> Tensor:
    """Block-sparse attention of some heads of one row, [M, L, H].

    One softmax runs over a query block's whole list, in which a block counts as often as it stood there.
    """
    run, W = _fused_attend if row.how.fused else plain.attend, row.block_size
    q_MLH, k_MLH, v_MLH = (x.contiguous() for x in (q_MLH, k_MLH, v_MLH))
    bias_L = plain.mask_bias(mask_L, q_MLH.dtype)
    listed, contexts = Listed(bias_L, blocks_MQS, counts_MQS, W), []
    for text in row.in_order():
        global_MGH = run(
            take_rows(q_MLH, text.global_rows), k_MLH[:, text.rows], v_MLH[:, text.rows], bias_L[text.rows]
        )
        contexts.append(global_MGH[:, :W])
        for rows, lists in text.chunks:
            blocks, bias_X1K = listed.chunk(lists)
            context_XWH = run(fold(q_MLH[:, rows], W), take(k_MLH, blocks, W), take(v_MLH, blocks, W), bias_X1K)
            contexts.append(context_XWH.reshape(len(q_MLH), -1, v_MLH.shape[-1]))
        contexts.append(global_MGH[:, W:])
    return torch.cat(contexts, dim=1).mul_(mask_L[:, None])


class Listed:
    """The lists of some heads; query blocks of different heads are alike to attend: X = M x C of them at once."""

    def __init__(self, bias_L: Tensor, blocks_MQS: Tensor, counts_MQS: Tensor, W: int) -> None:
        (M, Q, S), n = blocks_MQS.shape, len(bias_L) // W
        bias_MQSW = bias_L.view(n, W).index_select(0, blocks_MQS.flatten()).view(M, Q, S, W)
        bias_MQSW += count_bias(counts_MQS, bias_L.dtype)[..., None]
        self.bias_MQ1K = bias_MQSW.view(M, Q, 1, S * W)
        self.blocks_MQS = blocks_MQS + torch.arange(M, device=blocks_MQS.device)[:, None, None] * n

    def chunk(self, lists: slice) -> tuple[Tensor, Tensor]:
        """Return key blocks [X, S], numbered through all heads, and their bias [X, 1, K]."""
        return self.blocks_MQS[:, lists].flatten(0, 1), self.bias_MQ1K[:, lists].flatten(0, 1)


def count_bias(counts_MQS: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of key blocks: what counts m times is what has log(m) added."""
    return plain.mask_bias(counts_MQS > 0, dtype) + counts_MQS.clamp(min=1).to(dtype).log()


def take_rows(x_MLH: Tensor, slices: list[slice]) -> Tensor:
    """Return the rows of several slices, one after the other."""
    return torch.cat([x_MLH[:, rows] for rows in slices], dim=1)


def fold(x_MLH: Tensor, W: int) -> Tensor:
    """The blocks of all heads, [X, W, H]."""
    return x_MLH.unflatten(1, (-1, W)).flatten(0, 1)


def in_blocks(x_MLH: Tensor, W: int) -> Tensor:
    """The blocks of all heads, one a row; x is contiguous."""
    return x_MLH.view(-1, W * x_MLH.shape[-1])


def take(x_MLH: Tensor, blocks_XS: Tensor, W: int) -> Tensor:
    """The rows of each query block's key blocks, [X, K, H]."""
    return in_blocks(x_MLH, W).index_select(0, blocks_XS.flatten()).view(len(blocks_XS), -1, x_MLH.shape[-1])


def _fused_attend(q_XWH: Tensor, k_XKH: Tensor, v_XKH: Tensor, bias: Tensor) -> Tensor:
    """The same in torch's fused attention, which keeps no scores in memory; [X, W, H]."""
    mask = bias.expand(len(q_XWH), q_XWH.shape[1], k_XKH.shape[1])
    q_X1WH, k_X1KH, v_X1KH = (x[:, None] for x in (q_XWH, k_XKH, v_XKH))
    return functional.scaled_dot_product_attention(q_X1WH, k_X1KH, v_X1KH, attn_mask=mask[:, None])[:, 0]
