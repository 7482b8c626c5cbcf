"""Block-sparse attention: each query block gathers the key blocks of its list.

Legend: B batch, L length, N heads, H head size, W block size, n blocks in the sequence, Q query blocks with a key list
of their own, S slots in such a list, M heads and C query blocks at once, X = M x C, K keys, G rows of global blocks.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models_torch.attention import batched, gathering, gradient, kernels, open_batch
from models_torch.attention.lists import KeyLists
from models_torch.attention.rows import Row


def block_sparse_attention(
    q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor, mask_BL: Tensor, lists: KeyLists, block_size: int
) -> Tensor:
    """Each query block attends to its own list of key blocks, the global blocks to their whole text; [B, L, N, H].

    The context of padded queries is 0. What runs at once is lists.how's, and keeps memory linear in L; the gradient
    computes the probabilities again. The batch is padded to whole blocks inside. Values may be wider than keys.
    """
    if lists.tasks is not None and kernels.suit(q_BNLH, v_BNLH, block_size):
        launch, without = kernels.Launch(*lists.tasks, block_size), lists._replace(tasks=None)

        def again(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return block_sparse_attention(q, k, v, mask_BL, without, block_size)

        return kernels.Kernels.apply(q_BNLH, k_BNLH, v_BNLH, mask_BL, launch, again)
    length = q_BNLH.shape[2]
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (functional.pad(x, (0, 0, 0, missing)) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = functional.pad(mask_BL, (0, missing))
    run: Callable[..., Tensor]
    given: tuple[Any, ...]
    if not open_batch.is_known(q_BNLH.shape[0]):
        row = Row(lists.texts, lists.global_blocks, block_size, lists.how)
        return open_batch.every_text(q_BNLH, k_BNLH, v_BNLH, mask_BL, lists.key_blocks, lists.counts, row)[:, :length]
    if lists.tables is None:
        row = Row(lists.texts, lists.global_blocks, block_size, lists.how)
        run, given = gathering.every_head, (lists.key_blocks, lists.counts, row)
    else:
        batch = batched.Batch(lists.tables, block_size, lists.how.gathered_at_once)
        run, given = batched.every_head, (*batched.keyed(mask_BL, lists.tables, block_size, q_BNLH.dtype), batch)
    if not torch.compiler.is_compiling():  # a compiler has its own way to choose what to keep
        run = gradient.BlockSparse.apply
    return run(q_BNLH, k_BNLH, v_BNLH, mask_BL, *given)[:, :length]
