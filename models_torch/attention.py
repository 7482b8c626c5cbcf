"""Self-attention: full, and block-sparse as one gather of key blocks.

Legend: B batch, L length, D hidden, N heads, H head size, W block size, n blocks in the sequence, Q query blocks
with a key list of their own, S slots in such a list, K keys.

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


def attend(q_BNLH: Tensor, k_BNKH: Tensor, v_BNKH: Tensor, allowed: Tensor, dropout: nn.Module | None = None) -> Tensor:
    """Softmax attention of queries (already scaled) over the keys that ``allowed`` (bool, to [B, N, L, K]) admits.

    A row that admits no key weighs all keys alike, so that no NaN arises.
    """
    scores = q_BNLH @ k_BNKH.transpose(-1, -2)
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    return (dropout(weights) if dropout else weights) @ v_BNKH


def full_attention(
    q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor, mask_BL: Tensor, causal: bool, dropout: nn.Module | None = None
) -> Tensor:
    """Every query attends to every key that is not padding (``causal``: and does not lie ahead); [B, N, L, H]."""
    allowed = mask_BL[:, None, None, :]
    if causal:
        L = mask_BL.shape[1]
        allowed = allowed & torch.ones(L, L, dtype=torch.bool, device=mask_BL.device).tril()
    return attend(q_BNLH, k_BNLH, v_BNLH, allowed, dropout)


def block_sparse_attention(
    q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor, mask_BL: Tensor, lists: KeyLists, block_size: int
) -> Tensor:
    """Each query block attends to its own list of key blocks, the global blocks to all keys; [B, N, L, H].

    The context of padded queries is 0. One softmax runs over the whole list: a block that stands in it twice
    counts twice. One query block at a time keeps memory linear in L and small.
    """
    B, N, length, H = q_BNLH.shape
    W = block_size
    q_BNLH, k_BNLH, v_BNLH = (_pad_to_blocks(x, W) for x in (q_BNLH, k_BNLH, v_BNLH))
    mask_BL = functional.pad(mask_BL, (0, q_BNLH.shape[2] - length))
    n, (_, Q, S) = mask_BL.shape[1] // W, lists.key_blocks.shape
    first_block_N1 = n * torch.arange(N, device=mask_BL.device)[:, None]
    k_blocks, v_blocks = (x.reshape(B, N * n, W, H) for x in (k_BNLH, v_BNLH))
    mask_BnW = mask_BL.view(B, n, W)

    contexts = [attend(q_BNLH[:, :, :W], k_BNLH, v_BNLH, mask_BL[:, None, None])]
    for i in range(Q):
        blocks_NS = lists.key_blocks[:, i]
        index = (blocks_NS + first_block_N1).flatten()
        k_BNKH, v_BNKH = (x.index_select(1, index).view(B, N, S * W, H) for x in (k_blocks, v_blocks))
        allowed_BNSW = mask_BnW[:, blocks_NS] & lists.live[:, i, :, None]
        q_BNWH = q_BNLH[:, :, (i + 1) * W : (i + 2) * W]
        contexts.append(attend(q_BNWH, k_BNKH, v_BNKH, allowed_BNSW.view(B, N, 1, S * W)))
    last_is_global = n - 2 == Q
    if last_is_global:
        contexts.append(attend(q_BNLH[:, :, -W:], k_BNLH, v_BNLH, mask_BL[:, None, None]))
    context_BNLH = torch.cat(contexts, dim=2) * mask_BL[:, None, :, None]
    return context_BNLH[:, :, :length]


def _pad_to_blocks(x_BNLH: Tensor, block_size: int) -> Tensor:
    missing = -x_BNLH.shape[2] % block_size
    return functional.pad(x_BNLH, (0, 0, 0, missing)) if missing else x_BNLH


class BigBirdSelfAttention(nn.Module):
    """Queries, keys and values, and the attention between them."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.value = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor, lists: KeyLists | None) -> tuple[Tensor, Taps]:
        """Return the context [B, L, D] and the taps query, key, value [B, N, L, H] and context [B, L, N, H]."""
        q_BNLH, k_BNLH, v_BNLH = (self._split_heads(dense(x_BLD)) for dense in (self.query, self.key, self.value))
        scaled_BNLH = q_BNLH / math.sqrt(self.config.head_dim)
        if lists is None:
            context_BNLH = full_attention(scaled_BNLH, k_BNLH, v_BNLH, mask_BL, self.config.is_decoder, self.dropout)
        else:
            context_BNLH = block_sparse_attention(scaled_BNLH, k_BNLH, v_BNLH, mask_BL, lists, self.config.block_size)
        context_BLNH = context_BNLH.transpose(1, 2)
        taps = {"query": q_BNLH, "key": k_BNLH, "value": v_BNLH, "context": context_BLNH}
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
    """Self-attention and its output."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.self = BigBirdSelfAttention(config)
        self.output = BigBirdSelfOutput(config)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor, lists: KeyLists | None) -> tuple[Tensor, Taps]:
        """Return the sublayer's output [B, L, D] and its taps, attention_output among them."""
        context_BLD, taps = self.self(x_BLD, mask_BL, lists)
        output_BLD = self.output(context_BLD, x_BLD)
        return output_BLD, taps | {"attention_output": output_BLD}
