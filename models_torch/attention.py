"""Self-attention: full, and block-sparse as one gather of key blocks.

Legend: B batch, L length (of the queries), D hidden, N heads, H head size, W block size, n blocks in the sequence,
Q query blocks with a key list of their own, S slots in such a list, C query blocks at once, K keys, G rows of the
global blocks. A mask named BL is [B, K] where there are more keys than queries (a cache, cross-attention), and may
be [B, L, K] for full attention.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbird_port.config import BigBirdConfig
from bigbird_port.pattern import Pattern

BLOCKS_AT_ONCE = 8  # measured by benchmarks/attention.py: more leave the cache, fewer cost calls

Taps = dict[str, Tensor]


class KeyLists(NamedTuple):
    """A Pattern on the device: key_blocks int64 [N, Q, S] and live bool [N, Q, S]."""

    key_blocks: Tensor
    live: Tensor


def key_lists(pattern: Pattern | None, device: torch.device) -> KeyLists | None:
    """Move a pattern to a device; None (full attention) stays None."""
    if pattern is None:
        return None
    return KeyLists(
        torch.as_tensor(pattern.key_blocks.astype("int64"), device=device),
        torch.as_tensor(pattern.live.copy(), device=device),
    )


def attend(q_LH: Tensor, k_KH: Tensor, v_KH: Tensor, bias_LK: Tensor, dropout: nn.Module | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(H) + bias) v, [..., L, H]; leading axes broadcast, ``bias`` is mask_bias's."""
    scale = 1 / math.sqrt(q_LH.shape[-1])
    if q_LH.ndim == 3:  # scale, product and bias in one pass: a fifth of block-sparse attention's time
        scores_LK = torch.baddbmm(bias_LK, q_LH, k_KH.transpose(-1, -2), alpha=scale)
    else:
        scores_LK = (q_LH * scale) @ k_KH.transpose(-1, -2)
        scores_LK += bias_LK
    weights_LK = scores_LK.softmax(dim=-1)
    return (dropout(weights_LK) if dropout else weights_LK) @ v_KH


def mask_bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where ``allowed`` and else a number so low that exp gives 0; a row without any key weighs all alike.

    Half of the lowest number, so that adding a score does not overflow to -inf, whose softmax would be NaN.
    """
    lowest = max(torch.finfo(dtype).min, torch.finfo(torch.float32).min)  # a wider one is -inf to torch.where
    return torch.where(allowed, 0.0, lowest / 2).to(dtype)


def full_attention(
    q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor, mask_BL: Tensor, causal: bool, dropout: nn.Module | None = None
) -> Tensor:
    """Every query attends to every key that is not padding (``causal``: and does not lie ahead); [B, L, N, H].

    The queries are the last of the keys. A mask [B, L, K] says alone who attends to whom, ``causal`` or not.
    """
    L, K = q_BNLH.shape[2], k_BNLH.shape[2]
    allowed = mask_BL[:, None] if mask_BL.ndim == 3 else mask_BL[:, None, None, :]
    if causal and mask_BL.ndim == 2:
        allowed = allowed & torch.ones(L, K, dtype=torch.bool, device=mask_BL.device).tril(K - L)
    return attend(q_BNLH, k_BNLH, v_BNLH, mask_bias(allowed, q_BNLH.dtype), dropout).transpose(1, 2)


def block_sparse_attention(
    q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor, mask_BL: Tensor, lists: KeyLists, block_size: int
) -> Tensor:
    """Each query block attends to its own list of key blocks, the global blocks to all keys; [B, L, N, H].

    The context of padded queries is 0. One head at a time and a few query blocks of it keep memory linear in L,
    small, and in the cache. The batch is padded to whole blocks inside. Values may be wider than keys.
    """
    B, N, length, _ = q_BNLH.shape
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (functional.pad(x, (0, 0, 0, missing)) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = functional.pad(mask_BL, (0, missing))
    heads = [
        _one_head(q_BNLH[b, h], k_BNLH[b, h], v_BNLH[b, h], mask_BL[b], lists.key_blocks[h], lists.live[h], block_size)
        for b in range(B)
        for h in range(N)
    ]
    context_BLNH = torch.stack(heads).unflatten(0, (B, N)).transpose(1, 2)
    return context_BLNH[:, :length]


def _one_head(
    q_LH: Tensor, k_LH: Tensor, v_LH: Tensor, mask_L: Tensor, blocks_QS: Tensor, live_QS: Tensor, W: int
) -> Tensor:
    """Block-sparse attention of one head of one text, [L, H].

    One softmax runs over a query block's whole list, so that a block that stands in it twice counts twice.
    """
    L, H = q_LH.shape
    Q, S = blocks_QS.shape
    k_blocks, v_blocks = (x.reshape(L // W, -1) for x in (k_LH, v_LH))
    bias_nW = mask_bias(mask_L, q_LH.dtype).view(L // W, W)
    dead_QS = mask_bias(live_QS, q_LH.dtype)
    # block 0 and, if the batch reaches it, the pattern's last block: G rows
    q_GH = torch.cat((q_LH[:W], q_LH[(Q + 1) * W :]))
    global_GH = attend(q_GH, k_LH, v_LH, mask_bias(mask_L, q_LH.dtype))
    contexts = [global_GH[:W]]
    for i in range(0, Q, BLOCKS_AT_ONCE):
        blocks_CS = blocks_QS[i : i + BLOCKS_AT_ONCE]
        C = blocks_CS.shape[0]
        k_CKH, v_CKH = (x.index_select(0, blocks_CS.flatten()).view(C, S * W, -1) for x in (k_blocks, v_blocks))
        bias_CSW = bias_nW.index_select(0, blocks_CS.flatten()).view(C, S, W) + dead_QS[i : i + C, :, None]
        q_CWH = q_LH[(i + 1) * W : (i + 1 + C) * W].reshape(C, W, H)
        contexts.append(attend(q_CWH, k_CKH, v_CKH, bias_CSW.view(C, 1, S * W)).flatten(0, 1))
    contexts.append(global_GH[W:])
    return torch.cat(contexts).mul_(mask_L[:, None])


class BigBirdSelfAttention(nn.Module):
    """Queries, keys and values, and the attention between them."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.value = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(
        self,
        x_BLD: Tensor,
        mask_BL: Tensor,
        lists: KeyLists | None,
        head_mask_N: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        source_BKD: Tensor | None = None,
    ) -> tuple[Tensor, Taps]:
        """Return the context [B, L, D] and the taps query, key, value [B, N, L, H] and context [B, L, N, H].

        past: earlier keys and values, [B, N, K, H]. source_BKD: what cross-attention attends to, unless ``past`` is it.
        """
        q_BNLH = self._split_heads(self.query(x_BLD))
        if source_BKD is not None and past is not None:
            k_BNKH, v_BNKH = past
        else:
            keyed_BKD = x_BLD if source_BKD is None else source_BKD
            k_BNKH, v_BNKH = (self._split_heads(dense(keyed_BKD)) for dense in (self.key, self.value))
            if past is not None:
                k_BNKH, v_BNKH = torch.cat((past[0], k_BNKH), dim=2), torch.cat((past[1], v_BNKH), dim=2)
        if lists is None:
            causal = self.config.is_decoder and source_BKD is None
            context_BLNH = full_attention(q_BNLH, k_BNKH, v_BNKH, mask_BL, causal, self.dropout)
        else:
            context_BLNH = block_sparse_attention(q_BNLH, k_BNKH, v_BNKH, mask_BL, lists, self.config.block_size)
        if head_mask_N is not None:  # the same as to multiply the probabilities of the head
            context_BLNH = context_BLNH * head_mask_N[:, None].to(context_BLNH.dtype)
        taps = {"query": q_BNLH, "key": k_BNKH, "value": v_BNKH, "context": context_BLNH}
        return context_BLNH.flatten(2), taps

    def _split_heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.config.num_attention_heads, self.config.head_dim)).transpose(1, 2)


class BigBirdSelfOutput(nn.Module):
    """The output projection of the attention, its residual and LayerNorm."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, context_BLD: Tensor, x_BLD: Tensor) -> Tensor:
        """Return LayerNorm(x + dropout(dense(context))), [B, L, D]."""
        return self.LayerNorm(x_BLD + self.dropout(self.dense(context_BLD)))


class BigBirdAttention(nn.Module):
    """Attention, to the text itself or to an encoder's states, and its output."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.self = BigBirdSelfAttention(config)
        self.output = BigBirdSelfOutput(config)

    def forward(
        self,
        x_BLD: Tensor,
        mask_BL: Tensor,
        lists: KeyLists | None,
        head_mask_N: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        source_BKD: Tensor | None = None,
    ) -> tuple[Tensor, Taps]:
        """Return the sublayer's output [B, L, D] and its taps, attention_output among them."""
        context_BLD, taps = self.self(x_BLD, mask_BL, lists, head_mask_N, past, source_BKD)
        output_BLD = self.output(context_BLD, x_BLD)
        return output_BLD, taps | {"attention_output": output_BLD}
