"""Self-attention: full, and block-sparse as one gather of key blocks.

Legend: B batch, L length (of the queries), D hidden, N heads, H head size, W block size, n blocks in the sequence,
Q query blocks with a key list of their own, S slots in such a list, M heads and C query blocks at once, X = M x C,
K keys, G rows of the global blocks. A mask named BL is [B, K] where there are more keys than queries (a cache,
cross-attention), and may be [B, L, K] for full attention.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbird_port.config import BigBirdConfig
from bigbird_port.formulation import Formulation, formulation
from bigbird_port.pattern import Pattern, Text, fold_repeats
from models_torch import onednn

Taps = dict[str, Tensor]


class KeyLists(NamedTuple):
    """A Pattern on the device: key_blocks int64 [N, Q, S], counts int32 [N, Q, S], and its texts on the host.

    counts: how often each key block counts. global_blocks: each text's query blocks without a list.
    """

    key_blocks: Tensor
    counts: Tensor
    texts: tuple[Text, ...]
    global_blocks: tuple[tuple[int, ...], ...]


def key_lists(pattern: Pattern | None, device: torch.device) -> KeyLists | None:
    """Move a pattern to a device; None (full attention) stays None."""
    if pattern is None:
        return None
    folded = fold_repeats(pattern)
    return KeyLists(
        torch.as_tensor(folded.key_blocks.astype("int64"), device=device),
        torch.as_tensor(folded.live, device=device),
        folded.texts,
        folded.global_blocks(),
    )


def attend(q_LH: Tensor, k_KH: Tensor, v_KH: Tensor, bias_LK: Tensor, dropout: nn.Module | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(H) + bias) v, [..., L, H]; leading axes broadcast, ``bias`` is mask_bias's."""
    if dropout is None and _one_by_one(q_LH, k_KH, bias_LK):
        return onednn.attend(q_LH, k_KH, v_KH, bias_LK.expand(len(q_LH), 1, -1))
    weights_LK = _weights(q_LH, k_KH, bias_LK)
    return (dropout(weights_LK) if dropout else weights_LK) @ v_KH


def _one_by_one(q_LH: Tensor, k_KH: Tensor, bias_LK: Tensor) -> bool:
    """Whether these are query blocks, each with its keys, to be multiplied one after the other."""
    least = formulation("torch", q_LH.device.type).onednn_from
    blocks = q_LH.ndim == 3 and k_KH.ndim == 3 and len(k_KH) == len(q_LH)
    if least is None or not blocks or (bias_LK.ndim > 1 and bias_LK.shape[-2] != 1):
        return False
    return q_LH[0].numel() * k_KH.shape[1] >= least and onednn.faster(q_LH)


def _weights(q_LH: Tensor, k_KH: Tensor, bias_LK: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(H) + bias), [..., L, K]."""
    scale = 1 / math.sqrt(q_LH.shape[-1])
    if q_LH.ndim == 3:  # scale, product and bias in one pass: a fifth of block-sparse attention's time
        scores_LK = torch.baddbmm(bias_LK, q_LH, k_KH.transpose(-1, -2), alpha=scale)
    else:
        scores_LK = (q_LH * scale) @ k_KH.transpose(-1, -2)
        scores_LK += bias_LK
    return scores_LK.softmax(dim=-1)


def _fused_attend(q_XWH: Tensor, k_XKH: Tensor, v_XKH: Tensor, bias: Tensor) -> Tensor:
    """The same in torch's fused attention, which keeps no scores in memory; [X, W, H]."""
    mask = bias.expand(len(q_XWH), q_XWH.shape[1], k_XKH.shape[1])
    q_X1WH, k_X1KH, v_X1KH = (x[:, None] for x in (q_XWH, k_XKH, v_XKH))
    return functional.scaled_dot_product_attention(q_X1WH, k_X1KH, v_X1KH, attn_mask=mask[:, None])[:, 0]


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

    The queries are the last of the keys. A mask [B, L, K] says alone who attends to whom, ``causal`` or not. Some
    queries at a time, as the device's formulation has it.
    """
    L, K = q_BNLH.shape[2], k_BNLH.shape[2]

    def some_queries(some: slice) -> Tensor:
        allowed = mask_BL[:, None, some] if mask_BL.ndim == 3 else mask_BL[:, None, None, :]
        if causal and mask_BL.ndim == 2:
            seen = torch.ones(some.stop - some.start, K, dtype=torch.bool, device=mask_BL.device)
            allowed = allowed & seen.tril(K - L + some.start)
        return attend(q_BNLH[:, :, some], k_BNLH, v_BNLH, mask_bias(allowed, q_BNLH.dtype), dropout)

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
    return max(1, L if limit is None else min(L, limit // (B * N * K)))


def block_sparse_attention(
    q_BNLH: Tensor,
    k_BNLH: Tensor,
    v_BNLH: Tensor,
    mask_BL: Tensor,
    lists: KeyLists,
    block_size: int,
    how: Formulation | None = None,
) -> Tensor:
    """Each query block attends to its own list of key blocks, the global blocks to their whole text; [B, L, N, H].

    The context of padded queries is 0. Some heads and query blocks at a time (``how``, None: as the device's
    formulation has it) keep memory linear in L; the gradient computes the probabilities again. The batch is padded to
    whole blocks inside. Values may be wider than keys.
    """
    length = q_BNLH.shape[2]
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (functional.pad(x, (0, 0, 0, missing)) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = functional.pad(mask_BL, (0, missing))
    row = _Row(lists.texts, lists.global_blocks, block_size, how or formulation("torch", q_BNLH.device.type))
    # a compiler has its own way to choose what to keep
    run: Callable[..., Tensor] = _every_head if torch.compiler.is_compiling() else _BlockSparse.apply
    return run(q_BNLH, k_BNLH, v_BNLH, mask_BL, lists.key_blocks, lists.counts, row)[:, :length]


class _Text(NamedTuple):
    """A text's rows in L: all, those of its global blocks, and chunks of the others with their lists in Q."""

    rows: slice
    global_rows: list[slice]
    chunks: list[tuple[slice, slice]]


@dataclass(frozen=True)
class _Row:
    """What is known of a row of blocks before anything runs: its texts (see KeyLists), and how it is run."""

    texts: tuple[Text, ...]
    global_blocks: tuple[tuple[int, ...], ...]
    block_size: int
    how: Formulation

    def heads(self, N: int) -> list[slice]:
        """The heads that run at once."""
        step = self.how.heads_at_once or N
        return [slice(h, h + step) for h in range(0, N, step)]

    def in_order(self) -> Iterator[_Text]:
        """The texts. Blocks that have a list follow a text's first, and lists are in the order of their blocks."""
        W, done = self.block_size, 0
        for (first, blocks), own in zip(self.texts, self.global_blocks, strict=True):
            listed = blocks - len(own)
            step, chunks = self.how.blocks_at_once or max(listed, 1), []
            for i in range(0, listed, step):
                end = min(i + step, listed)
                chunks.append((slice((first + 1 + i) * W, (first + 1 + end) * W), slice(done + i, done + end)))
            done += listed
            global_rows = [slice(block * W, (block + 1) * W) for block in own]
            yield _Text(slice(first * W, (first + blocks) * W), global_rows, chunks)


def _every_head(q: Tensor, k: Tensor, v: Tensor, mask_BL: Tensor, blocks: Tensor, counts: Tensor, row: _Row) -> Tensor:
    """Block-sparse attention of whole blocks, [B, L, N, H]; blocks, counts: KeyLists's."""
    return _join_heads(
        [_some_heads(q[b, h], k[b, h], v[b, h], mask_BL[b], blocks[h], counts[h], row) for h in row.heads(q.shape[1])]
        for b in range(len(q))
    )


def _join_heads(batch: Iterable[list[Tensor]]) -> Tensor:
    """[B, L, N, H], copied once where B is 1, from some heads at a time [M, L, H]."""
    texts = [torch.cat([x_MLH.transpose(0, 1) for x_MLH in heads], dim=1) for heads in batch]
    return texts[0][None] if len(texts) == 1 else torch.stack(texts)


def _some_heads(
    q_MLH: Tensor, k_MLH: Tensor, v_MLH: Tensor, mask_L: Tensor, blocks_MQS: Tensor, counts_MQS: Tensor, row: _Row
) -> Tensor:
    """Block-sparse attention of some heads of one row, [M, L, H].

    One softmax runs over a query block's whole list, in which a block counts as often as it stood there.
    """
    run, W = _fused_attend if row.how.fused else attend, row.block_size
    q_MLH, k_MLH, v_MLH = (x.contiguous() for x in (q_MLH, k_MLH, v_MLH))
    bias_L = mask_bias(mask_L, q_MLH.dtype)
    listed, contexts = _Listed(bias_L, blocks_MQS, counts_MQS, W), []
    for text in row.in_order():
        global_MGH = run(_rows(q_MLH, text.global_rows), k_MLH[:, text.rows], v_MLH[:, text.rows], bias_L[text.rows])
        contexts.append(global_MGH[:, :W])
        for rows, lists in text.chunks:
            blocks, bias_X1K = listed.chunk(lists)
            context_XWH = run(_fold(q_MLH[:, rows], W), _take(k_MLH, blocks, W), _take(v_MLH, blocks, W), bias_X1K)
            contexts.append(context_XWH.reshape(len(q_MLH), -1, v_MLH.shape[-1]))
        contexts.append(global_MGH[:, W:])
    return torch.cat(contexts, dim=1).mul_(mask_L[:, None])


class _Listed:
    """The lists of some heads; query blocks of different heads are alike to attend: X = M x C of them at once."""

    def __init__(self, bias_L: Tensor, blocks_MQS: Tensor, counts_MQS: Tensor, W: int) -> None:
        (M, Q, S), n = blocks_MQS.shape, len(bias_L) // W
        # what counts m times is what has log(m) added to its scores
        count_bias_MQS = mask_bias(counts_MQS > 0, bias_L.dtype) + counts_MQS.clamp(min=1).to(bias_L.dtype).log()
        bias_MQSW = bias_L.view(n, W).index_select(0, blocks_MQS.flatten()).view(M, Q, S, W) + count_bias_MQS[..., None]
        self.bias_MQ1K = bias_MQSW.view(M, Q, 1, S * W)
        self.blocks_MQS = blocks_MQS + torch.arange(M, device=blocks_MQS.device)[:, None, None] * n

    def chunk(self, lists: slice) -> tuple[Tensor, Tensor]:
        """Return key blocks [X, S], numbered through all heads, and their bias [X, 1, K]."""
        return self.blocks_MQS[:, lists].flatten(0, 1), self.bias_MQ1K[:, lists].flatten(0, 1)


def _rows(x_MLH: Tensor, slices: list[slice]) -> Tensor:
    return torch.cat([x_MLH[:, rows] for rows in slices], dim=1)


def _fold(x_MLH: Tensor, W: int) -> Tensor:
    """The blocks of all heads, [X, W, H]."""
    return x_MLH.unflatten(1, (-1, W)).flatten(0, 1)


def _in_blocks(x_MLH: Tensor, W: int) -> Tensor:
    """The blocks of all heads, one a row; x is contiguous."""
    return x_MLH.view(-1, W * x_MLH.shape[-1])


def _take(x_MLH: Tensor, blocks_XS: Tensor, W: int) -> Tensor:
    """The rows of each query block's key blocks, [X, K, H]."""
    return _in_blocks(x_MLH, W).index_select(0, blocks_XS.flatten()).view(len(blocks_XS), -1, x_MLH.shape[-1])


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
        *tensors, ctx.row = inputs
        ctx.save_for_backward(*tensors, output)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_BLNH: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k and v."""
        q, k, v, mask_BL, blocks, counts, context_BLNH = ctx.saved_tensors
        grad_BNLH = (grad_BLNH * mask_BL[:, :, None, None]).to(q.dtype).transpose(1, 2)
        context_BNLH = context_BLNH.transpose(1, 2)
        gradients: list[list[list[Tensor]]] = [[], [], []]
        for b in range(len(q)):
            parts = []
            for h in ctx.row.heads(q.shape[1]):
                given = q[b, h], k[b, h], v[b, h], mask_BL[b], blocks[h], counts[h], ctx.row
                parts.append(_some_heads_gradient(*given, context_BNLH[b, h], grad_BNLH[b, h]))
            for batch, heads in zip(gradients, zip(*parts, strict=True), strict=True):
                batch.append(list(heads))
        return *(_join_heads(x).transpose(1, 2) for x in gradients), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the directional derivative, as the gradient of the gradient: forward mode does not nest."""
        *qkv, mask_BL, blocks, counts = ctx.saved_tensors
        row = replace(ctx.row, how=replace(ctx.row.how, fused=False))  # fused attention has no second derivative
        moved = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(qkv, tangents[:3], strict=True))
        vjp: Any = torch.func.vjp
        context, gradient = vjp(lambda q, k, v: _every_head(q, k, v, mask_BL, blocks, counts, row), *qkv)
        derivative: Tensor = vjp(gradient, torch.zeros_like(context))[1](moved)[0]
        return derivative


def _some_heads_gradient(
    q_MLH: Tensor,
    k_MLH: Tensor,
    v_MLH: Tensor,
    mask_L: Tensor,
    blocks_MQS: Tensor,
    counts_MQS: Tensor,
    row: _Row,
    context_MLH: Tensor,
    grad_MLH: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of some heads' queries, keys and values, [M, L, H] each, from that of their context."""
    q_MLH, k_MLH, v_MLH, grad_MLH = (x.contiguous() for x in (q_MLH, k_MLH, v_MLH, grad_MLH))
    bias_L, W = mask_bias(mask_L, q_MLH.dtype), row.block_size
    delta_ML1 = (grad_MLH * context_MLH).sum(-1, keepdim=True)
    edges = []
    for text in row.in_order():
        own = (_rows(x, text.global_rows) for x in (q_MLH, grad_MLH, delta_ML1))
        q_MGH, grad_MGH, delta_MG1 = own
        keyed = k_MLH[:, text.rows], v_MLH[:, text.rows], bias_L[text.rows]
        edges.append(_attend_gradient(q_MGH, *keyed, grad_MGH, delta_MG1))
    dk_MLH, dv_MLH = (torch.cat(x, dim=1) for x in list(zip(*edges, strict=True))[1:])
    listed, dq = _Listed(bias_L, blocks_MQS, counts_MQS, W), []
    for text, (dq_MGH, _, _) in zip(row.in_order(), edges, strict=True):
        dq.append(dq_MGH[:, :W])
        for rows, lists in text.chunks:
            blocks, bias_X1K = listed.chunk(lists)
            q_XWH, grad_XWH, delta_XW1 = (_fold(x[:, rows], W) for x in (q_MLH, grad_MLH, delta_ML1))
            keyed = _take(k_MLH, blocks, W), _take(v_MLH, blocks, W), bias_X1K
            dq_XWH, dk_XKH, dv_XKH = _attend_gradient(q_XWH, *keyed, grad_XWH, delta_XW1)
            dq.append(dq_XWH.reshape(len(q_MLH), -1, q_MLH.shape[-1]))
            for x_MLH, dx_XKH in ((dk_MLH, dk_XKH), (dv_MLH, dv_XKH)):
                _in_blocks(x_MLH, W).index_add_(0, blocks.flatten(), _in_blocks(dx_XKH, W))
        dq.append(dq_MGH[:, W:])
    scale = 1 / math.sqrt(q_MLH.shape[-1])
    return torch.cat(dq, dim=1).mul_(scale), dk_MLH.mul_(scale), dv_MLH


def _attend_gradient(
    q_CLH: Tensor, k_CKH: Tensor, v_CKH: Tensor, bias: Tensor, grad_CLH: Tensor, delta_CL1: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attend's queries and keys, both yet to be scaled as the scores are, and of its values.

    delta: what all scores of a query have in common in the softmax's gradient, the sum of context x gradient.
    """
    if _one_by_one(q_CLH, k_CKH, bias):
        return onednn.attend_gradient(q_CLH, k_CKH, v_CKH, bias.expand(len(q_CLH), 1, -1), grad_CLH, delta_CL1)
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
