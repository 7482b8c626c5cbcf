"""Self-attention: full, and block-sparse as one gather of key blocks.

Legend: B batch, L length (of the queries), D hidden, N heads, H head size, W block size, n blocks in the sequence,
Q query blocks with a key list of their own, S slots in such a list, C query blocks at once, K keys, G rows of the
global blocks. A mask named BL is [B, K] where there are more keys than queries (a cache, cross-attention), and may
be [B, L, K] for full attention.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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
    weights_LK = _weights(q_LH, k_KH, bias_LK)
    return (dropout(weights_LK) if dropout else weights_LK) @ v_KH


def _weights(q_LH: Tensor, k_KH: Tensor, bias_LK: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(H) + bias), [..., L, K]."""
    scale = 1 / math.sqrt(q_LH.shape[-1])
    if q_LH.ndim == 3:  # scale, product and bias in one pass: a fifth of block-sparse attention's time
        scores_LK = torch.baddbmm(bias_LK, q_LH, k_KH.transpose(-1, -2), alpha=scale)
    else:
        scores_LK = (q_LH * scale) @ k_KH.transpose(-1, -2)
        scores_LK += bias_LK
    return scores_LK.softmax(dim=-1)


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
    small, and in the cache; the gradient computes the probabilities again. The batch is padded to whole blocks inside.
    Values may be wider than keys.
    """
    length = q_BNLH.shape[2]
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (functional.pad(x, (0, 0, 0, missing)) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = functional.pad(mask_BL, (0, missing))
    # a compiler has its own way to choose what to keep
    run: Callable[..., Tensor] = _every_head if torch.compiler.is_compiling() else _BlockSparse.apply
    return run(q_BNLH, k_BNLH, v_BNLH, mask_BL, *lists, block_size)[:, :length]


def _every_head(q: Tensor, k: Tensor, v: Tensor, mask_BL: Tensor, blocks: Tensor, live: Tensor, W: int) -> Tensor:
    """Block-sparse attention of whole blocks, [B, L, N, H]; blocks, live: KeyLists's."""
    B, N = q.shape[:2]
    heads = [
        _one_head(q[b, h], k[b, h], v[b, h], mask_BL[b], blocks[h], live[h], W) for b in range(B) for h in range(N)
    ]
    return torch.stack(heads).unflatten(0, (B, N)).transpose(1, 2)


def _one_head(
    q_LH: Tensor, k_LH: Tensor, v_LH: Tensor, mask_L: Tensor, blocks_QS: Tensor, live_QS: Tensor, W: int
) -> Tensor:
    """Block-sparse attention of one head of one text, [L, H].

    One softmax runs over a query block's whole list, so that a block that stands in it twice counts twice.
    """
    bias_L, last = mask_bias(mask_L, q_LH.dtype), (len(blocks_QS) + 1) * W
    global_GH = attend(_global_rows(q_LH, last, W), k_LH[None], v_LH[None], bias_L)[0]
    contexts = [global_GH[:W]]
    for rows, blocks_CS, bias_C1K in _chunks(bias_L, blocks_QS, live_QS, W):
        k_CKH, v_CKH = _take_blocks(k_LH, blocks_CS, W), _take_blocks(v_LH, blocks_CS, W)
        contexts.append(attend(q_LH[rows].unflatten(0, (-1, W)), k_CKH, v_CKH, bias_C1K).flatten(0, 1))
    contexts.append(global_GH[W:])
    return torch.cat(contexts).mul_(mask_L[:, None])


def _global_rows(x_LH: Tensor, last: int, W: int) -> Tensor:
    """Rows of block 0 and, if the batch reaches it, of the pattern's last block, [1, G, H]."""
    return torch.cat((x_LH[:W], x_LH[last:]))[None]


def _chunks(bias_L: Tensor, blocks_QS: Tensor, live_QS: Tensor, W: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield a few query blocks at a time: their rows in L, their key blocks [C, S] and the bias of these [C, 1, K]."""
    bias_nW, dead_QS1 = bias_L.view(-1, W), mask_bias(live_QS, bias_L.dtype)[:, :, None]
    for i in range(0, len(blocks_QS), BLOCKS_AT_ONCE):
        blocks_CS = blocks_QS[i : i + BLOCKS_AT_ONCE]
        C, S = blocks_CS.shape
        bias_CSW = bias_nW.index_select(0, blocks_CS.flatten()).view(C, S, W) + dead_QS1[i : i + C]
        yield slice((i + 1) * W, (i + 1 + C) * W), blocks_CS, bias_CSW.view(C, 1, S * W)


def _take_blocks(x_LH: Tensor, blocks_CS: Tensor, W: int) -> Tensor:
    """The rows of each chunk's key blocks, [C, K, H]."""
    x_blocks = x_LH.reshape(len(x_LH) // W, -1)
    return x_blocks.index_select(0, blocks_CS.flatten()).view(len(blocks_CS), -1, x_LH.shape[-1])


class _BlockSparse(torch.autograd.Function):
    """_every_head with a gradient that computes the probabilities again, so that nothing [queries, keys] is kept.

    Made of ordinary operations in both directions: second derivatives and torch.func go through it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        """See _every_head."""
        return _every_head(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what went in and what came out."""
        *tensors, ctx.block_size = inputs
        ctx.save_for_backward(*tensors, output)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_BLNH: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k and v."""
        q, k, v, mask_BL, blocks, live, context_BLNH = ctx.saved_tensors
        B, N = q.shape[:2]
        grad_BLNH = (grad_BLNH * mask_BL[:, :, None, None]).to(q.dtype)
        heads = []
        for b in range(B):
            for h in range(N):
                head = q[b, h], k[b, h], v[b, h], mask_BL[b], blocks[h], live[h], ctx.block_size
                heads.append(_one_head_gradient(*head, context_BLNH[b, :, h], grad_BLNH[b, :, h]))
        gradients = (torch.stack(x).unflatten(0, (B, N)) for x in zip(*heads, strict=True))
        return *gradients, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the directional derivative, as the gradient of the gradient: forward mode does not nest."""
        *qkv, mask_BL, blocks, live = ctx.saved_tensors
        moved = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(qkv, tangents[:3], strict=True))
        vjp: Any = torch.func.vjp
        context, gradient = vjp(lambda q, k, v: _every_head(q, k, v, mask_BL, blocks, live, ctx.block_size), *qkv)
        derivative: Tensor = vjp(gradient, torch.zeros_like(context))[1](moved)[0]
        return derivative


def _one_head_gradient(
    q_LH: Tensor,
    k_LH: Tensor,
    v_LH: Tensor,
    mask_L: Tensor,
    blocks_QS: Tensor,
    live_QS: Tensor,
    W: int,
    context_LH: Tensor,
    grad_LH: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one head's queries, keys and values, [L, H] each, from that of its context."""
    bias_L, last = mask_bias(mask_L, q_LH.dtype), (len(blocks_QS) + 1) * W
    delta_L1 = (grad_LH * context_LH).sum(-1, keepdim=True)
    q_1GH, grad_1GH, delta_1G1 = (_global_rows(x, last, W) for x in (q_LH, grad_LH, delta_L1))
    dq_1GH, dk_1LH, dv_1LH = _attend_gradient(q_1GH, k_LH[None], v_LH[None], bias_L, grad_1GH, delta_1G1)
    dq, dk_blocks, dv_blocks = [dq_1GH[0, :W]], *(x.view(len(k_LH) // W, -1) for x in (dk_1LH, dv_1LH))
    for rows, blocks_CS, bias_C1K in _chunks(bias_L, blocks_QS, live_QS, W):
        k_CKH, v_CKH = _take_blocks(k_LH, blocks_CS, W), _take_blocks(v_LH, blocks_CS, W)
        q_CWH, grad_CWH, delta_CW1 = (x[rows].unflatten(0, (-1, W)) for x in (q_LH, grad_LH, delta_L1))
        dq_CWH, dk_CKH, dv_CKH = _attend_gradient(q_CWH, k_CKH, v_CKH, bias_C1K, grad_CWH, delta_CW1)
        dq.append(dq_CWH.flatten(0, 1))
        for blocks, x_CKH in ((dk_blocks, dk_CKH), (dv_blocks, dv_CKH)):
            blocks.index_add_(0, blocks_CS.flatten(), x_CKH.view(blocks_CS.numel(), -1))
    dq.append(dq_1GH[0, W:])
    scale = 1 / math.sqrt(q_LH.shape[-1])
    return torch.cat(dq).mul_(scale), dk_1LH[0].mul_(scale), dv_1LH[0]


def _attend_gradient(
    q_CLH: Tensor, k_CKH: Tensor, v_CKH: Tensor, bias: Tensor, grad_CLH: Tensor, delta_CL1: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attend's queries and keys, both yet to be scaled as the scores are, and of its values.

    delta: what all scores of a query have in common in the softmax's gradient, the sum of context x gradient.
    """
    weights_CLK = _weights(q_CLH, k_CKH, bias)
    dv_CKH = weights_CLK.transpose(-1, -2) @ grad_CLH
    scores_CLK = torch.baddbmm(-delta_CL1, grad_CLH, v_CKH.transpose(-1, -2)).mul_(weights_CLK)
    return scores_CLK @ k_CKH, scores_CLK.transpose(-1, -2) @ q_CLH, dv_CKH


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
        return x_BLD.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)


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
