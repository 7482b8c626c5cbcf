"""Block-sparse attention: each query block gathers the key blocks of its list.

Legend: B batch, L length, N heads, H head size, W block size, n blocks in the sequence, Q query blocks with a key list
of their own, S slots in such a list, M heads and C query blocks at once, X = M x C, K keys, G rows of global blocks.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from bigbird_port.sparse.formulation import Formulation, formulation
from models_torch.attention import gradient
from models_torch.attention.batched import every_text, is_known
from models_torch.attention.gathering import every_head
from models_torch.attention.lists import KeyLists
from models_torch.attention.rows import Row


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
    row = Row(lists.texts, lists.global_blocks, block_size, how or formulation("torch", q_BNLH.device.type))
    # a compiler has its own way to choose what to keep
    run: Callable[..., Tensor] = every_head if torch.compiler.is_compiling() else gradient.BlockSparse.apply
    run = run if is_known(q_BNLH.shape[0]) else every_text
    return run(q_BNLH, k_BNLH, v_BNLH, mask_BL, lists.key_blocks, lists.counts, row)[:, :length]
