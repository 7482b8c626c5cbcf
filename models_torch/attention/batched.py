"""Block-sparse attention of all texts and heads as one batch of tasks: every operation is a launch to a device.

The number of operations depends neither on the batch nor on the heads. Flax has no counterpart, because XLA compiles
gathering.py's into the same.

Legend: B batch, N heads, L length, H head size, W block size, P blocks in the row, T tasks of a head, S slots in a
task, K = S x W keys, E tasks that are parts, G blocks that have parts, M the most parts of a block, X some tasks of all
heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bigbird_port.sparse.tasks import Tasks
from models_torch.attention import plain


class Tables(NamedTuple):
    """A Tasks over query blocks on a device, heads first, and what follows from it.

    rows [N, T], blocks [N, T, S], parts [N, G, M], places [N, P]: int32, Tasks's; 0 for a part that is not there.
    log_counts: float64 [N, T, S], -inf where nothing counts. part_live, part_bias: float32 [N, G, M], 1 and 0 for a
    part, 0 and -inf where there is none. row_places: int32 [N, T], the place of a task's own block.
    """

    rows: Tensor
    blocks: Tensor
    parts: Tensor
    places: Tensor
    log_counts: Tensor
    part_live: Tensor
    part_bias: Tensor
    row_places: Tensor
    part_tasks: int


def tables_of(tasks: Tasks, device: torch.device) -> Tables:
    """Move tasks to a device."""
    live = tasks.parts >= 0
    with np.errstate(divide="ignore"):
        log_counts = np.log(tasks.counts.astype(np.float64))
    arrays = (
        *(tasks.rows, tasks.blocks, np.maximum(tasks.parts, 0), tasks.places, log_counts),
        *(live.astype(np.float32), np.where(live, 0, -np.inf).astype(np.float32)),
        np.take_along_axis(tasks.places, tasks.rows, axis=1),
    )
    return Tables._make([*(torch.tensor(x, device=device) for x in arrays), tasks.part_tasks])


class Batch(NamedTuple):
    """What is known of a batch before anything runs: its tables, and how many numbers are gathered at once."""

    tables: Tables
    block_size: int
    gathered_at_once: int | None

    def chunks(self, heads: int, width: int) -> Iterator[slice]:
        """The tasks that run at once; heads: of all texts, width: of a key and its value together."""
        _, T, S = self.tables.blocks.shape
        step = T if self.gathered_at_once is None else self.gathered_at_once // (heads * S * self.block_size * width)
        step = max(1, min(step, T))
        return (slice(start, min(start + step, T)) for start in range(0, T, step))


def keyed(mask_BL: Tensor, tables: Tables, block_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the bias of each task's keys [B, N, T, K], and its key blocks [B, N, T, S] numbered through the batch."""
    (N, T, S), B = tables.blocks.shape, len(mask_BL)
    mask_BPW = mask_BL.unflatten(1, (-1, block_size))
    P, lowest = mask_BPW.shape[1], plain.lowest(dtype)
    allowed_BXW = mask_BPW.index_select(1, tables.blocks.flatten())
    log_counts_X1 = tables.log_counts.to(dtype).clamp(min=lowest).view(-1, 1)
    bias_BXW = torch.where(allowed_BXW, log_counts_X1, lowest)
    firsts_BN11 = torch.arange(0, B * N * P, P, dtype=torch.int32, device=mask_BL.device).view(B, N, 1, 1)
    return bias_BXW.view(B, N, T, S * block_size), tables.blocks + firsts_BN11


def every_head(
    q: Tensor, k: Tensor, v: Tensor, mask_BL: Tensor, bias_BNTK: Tensor, blocks_BNTS: Tensor, batch: Batch
) -> Tensor:
    """Block-sparse attention of whole blocks, [B, L, N, H]; bias and blocks: keyed's."""
    tables, E = batch.tables, batch.tables.part_tasks
    keys, values = _in_blocks(k, batch), _in_blocks(v, batch)
    q_BNTWH = _of_tasks(q, tables.rows, batch)
    contexts, logs = [], []
    for some in batch.chunks(len(q) * q.shape[1], k.shape[-1] + v.shape[-1]):
        blocks_XS = blocks_BNTS[:, :, some].flatten(0, 2)
        scores_XWK = _scores(q_BNTWH[:, :, some], _take(keys, blocks_XS, k), bias_BNTK[:, :, some])
        context_XWH = scores_XWK.softmax(dim=-1) @ _take(values, blocks_XS, v)
        contexts.append(_by_heads(context_XWH, q))
        if some.start < E:
            parts_BNEWK = _by_heads(scores_XWK, q)[:, :, : E - some.start]
            logs.append(_wide(parts_BNEWK).logsumexp(-1, keepdim=True))
    context_BNTWH = _join(contexts)
    if E:
        logs_BNGMW1 = _parts(_join(logs), tables) + tables.part_bias[0, :, :, None, None]
        weighted_BNGMWH = _parts(context_BNTWH[:, :, :E], tables) * logs_BNGMW1.softmax(dim=3)
        merged_BNGWH = weighted_BNGMWH.sum(3).to(q.dtype)
        context_BNTWH = torch.cat((context_BNTWH[:, :, E:], merged_BNGWH), dim=2)
    context_BNLH = context_BNTWH.index_select(2, tables.places[0]).flatten(2, 3)
    return (context_BNLH * mask_BL[:, None, :, None]).transpose(1, 2)


def every_head_gradient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask_BL: Tensor,
    bias_BNTK: Tensor,
    blocks_BNTS: Tensor,
    batch: Batch,
    context_BLNH: Tensor,
    grad_BLNH: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, [B, N, L, H] each, from that of the context.

    Sums are in one order: an index that adds up (index_put) sorts on CUDA, where index_add races.
    """
    tables, scale = batch.tables, q.shape[-1] ** -0.5
    grad_BLNH = (grad_BLNH * mask_BL[:, :, None, None]).to(q.dtype)
    delta_BNL1 = (grad_BLNH * context_BLNH).sum(-1, keepdim=True).transpose(1, 2)
    grad_BNLH = grad_BLNH.transpose(1, 2)
    keys, values = _in_blocks(k, batch), _in_blocks(v, batch)
    of_tasks = tuple(_of_tasks(x, tables.rows, batch) for x in (q, grad_BNLH, delta_BNL1))

    def scores_of(some: slice) -> Tensor:
        keys_XKH = _take(keys, blocks_BNTS[:, :, some].flatten(0, 2), k)
        return _wide(_scores(of_tasks[0][:, :, some], keys_XKH, bias_BNTK[:, :, some]))

    chunks = list(batch.chunks(len(q) * q.shape[1], k.shape[-1] + v.shape[-1]))
    kept = scores_of(chunks[0]) if len(chunks) == 1 else None  # several would be as much memory as one
    logs = [_by_heads((scores_of(x) if kept is None else kept).logsumexp(-1, keepdim=True), q) for x in chunks]
    log_BNTW1 = _row_logs(_join(logs), tables)
    dq, dkeys, dvalues = [], torch.zeros_like(keys), torch.zeros_like(values)
    for some in chunks:
        blocks_XS = blocks_BNTS[:, :, some].flatten(0, 2)
        k_XKH, v_XKH = _take(keys, blocks_XS, k), _take(values, blocks_XS, v)
        q_XWH, grad_XWH, delta_XW1, log_XW1 = (x[:, :, some].flatten(0, 2) for x in (*of_tasks, log_BNTW1))
        weights_XWK = ((scores_of(some) if kept is None else kept) - log_XW1).exp().to(q.dtype)
        dscores_XWK = torch.baddbmm(delta_XW1, grad_XWH, v_XKH.transpose(1, 2), beta=-scale, alpha=scale) * weights_XWK
        dq.append(_by_heads(dscores_XWK @ k_XKH, q))
        dkeys = _add(dkeys, blocks_XS, dscores_XWK.transpose(1, 2) @ q_XWH)
        dvalues = _add(dvalues, blocks_XS, weights_XWK.transpose(1, 2) @ grad_XWH)
    return _added_up(_join(dq), tables), dkeys.view(k.shape), dvalues.view(v.shape)


def _in_blocks(x_BNLH: Tensor, batch: Batch) -> Tensor:
    """The blocks of all texts and heads, one a row."""
    return x_BNLH.reshape(-1, batch.block_size * x_BNLH.shape[-1])


def _of_tasks(x_BNLH: Tensor, rows_NT: Tensor, batch: Batch) -> Tensor:
    """The own block of each task, [B, N, T, W, H]; it is the same for all heads."""
    return x_BNLH.unflatten(2, (-1, batch.block_size)).index_select(2, rows_NT[0])


def _take(blocks: Tensor, numbers_XS: Tensor, like: Tensor) -> Tensor:
    """The rows of each task's key blocks, [X, K, H]."""
    return blocks.index_select(0, numbers_XS.flatten()).view(len(numbers_XS), -1, like.shape[-1])


def _add(blocks: Tensor, numbers_XS: Tensor, x_XKH: Tensor) -> Tensor:
    """The blocks with each task's rows added to them."""
    return blocks.index_put((numbers_XS.flatten(),), x_XKH.reshape(-1, blocks.shape[1]), accumulate=True)


def _scores(q_BNTWH: Tensor, k_XKH: Tensor, bias_BNTK: Tensor) -> Tensor:
    """The scores of some tasks, [X, W, K]."""
    q_XWH, bias_X1K = q_BNTWH.flatten(0, 2), bias_BNTK.flatten(0, 2)[:, None]
    return torch.baddbmm(bias_X1K, q_XWH, k_XKH.transpose(1, 2), alpha=q_XWH.shape[-1] ** -0.5)


def _by_heads(x_XW: Tensor, q_BNLH: Tensor) -> Tensor:
    return x_XW.unflatten(0, (*q_BNLH.shape[:2], -1))


def _join(chunks: list[Tensor]) -> Tensor:
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=2)


def _wide(x: Tensor) -> Tensor:
    """The same in float32, if it is in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _parts(x_BNEW: Tensor, tables: Tables) -> Tensor:
    """What every owner's parts have, [B, N, G, M, W, ...]."""
    return x_BNEW.index_select(2, tables.parts[0].flatten()).unflatten(2, tables.parts.shape[1:])


def _row_logs(log_BNTW1: Tensor, tables: Tables) -> Tensor:
    """The log of the sum of weights of each task's own block, from those of the tasks."""
    E = tables.part_tasks
    if E == 0:
        return log_BNTW1
    merged_BNGW1 = (_parts(log_BNTW1[:, :, :E], tables) + tables.part_bias[0, :, :, None, None]).logsumexp(3)
    return torch.cat((log_BNTW1[:, :, E:], merged_BNGW1), dim=2).index_select(2, tables.row_places[0])


def _added_up(x_BNTWH: Tensor, tables: Tables) -> Tensor:
    """What belongs to each block's tasks, added up, in the blocks' order: [B, N, L, H]."""
    E = tables.part_tasks
    if E:
        merged_BNGWH = (_parts(x_BNTWH[:, :, :E], tables) * tables.part_live[0, :, :, None, None]).sum(3)
        x_BNTWH = torch.cat((x_BNTWH[:, :, E:], merged_BNGWH.to(x_BNTWH.dtype)), dim=2)
    return x_BNTWH.index_select(2, tables.places[0]).flatten(2, 3)
