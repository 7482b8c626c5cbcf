"""Block-sparse attention: each query block gathers the key blocks of its list.

Legend: B batch, L length, N heads, H head size, W block size, P blocks in a row of texts, T lists of key blocks, S
slots in such a list, C lists at once, Q query blocks with one list, G global query blocks, E lists of theirs, K keys.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

import jax
from jax import Array, lax
from jax import numpy as jnp

from bigbird_port.sparse.formulation import Formulation, formulation
from models_flax.attention import gradient, kernels
from models_flax.attention.lists import KeyLists
from models_flax.attention.sequence import SpreadLists

Lists = KeyLists | SpreadLists  # on one device, or on many


def block_sparse_attention(
    q_BNLH: Array,
    k_BNLH: Array,
    v_BNLH: Array,
    mask_BL: Array,
    lists: Lists,
    block_size: int,
    how: Formulation | None = None,
) -> Array:
    """Each query block attends to its own list of key blocks, the global blocks to their whole text; [B, L, N, H].

    The context of padded queries is 0. Some heads and lists at a time (``how``, None: as the device's formulation has
    it) keep memory linear in L; the gradient computes the probabilities again (in reverse mode, of any order; jax.jvp
    does not go through it). The batch is padded to whole blocks inside. Values may be wider than keys.
    """
    if isinstance(lists, SpreadLists):
        return lists.attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, block_size)
    how = how or formulation("flax", jax.default_backend())
    B, N, length, _ = q_BNLH.shape
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = jnp.pad(mask_BL, ((0, 0), (0, missing)))
    if how.kernels and kernels.fits(q_BNLH, v_BNLH):
        return gradient.by_kernels(block_size, lists, q_BNLH, k_BNLH, v_BNLH, mask_BL).swapaxes(1, 2)[:, :length]
    every_head = (
        *(x.reshape(B * N, -1, block_size, x.shape[-1]) for x in (q_BNLH, k_BNLH, v_BNLH)),
        jnp.repeat(mask_BL.reshape(B, -1, block_size), N, axis=0),
        *(jnp.tile(x, (B, 1, 1)) for x in (lists.key_blocks, lists.counts)),
    )

    def one_head(head: tuple[Array, ...]) -> Array:
        return gradient.one_head(*head, lists, how.blocks_at_once)

    if how.heads_at_once == 1:
        heads = lax.map(one_head, every_head)  # batch_size=1 would add an axis of 1: 1.4 times the time
    else:
        heads = lax.map(one_head, every_head, batch_size=how.heads_at_once or B * N)
    return heads.reshape(B, N, -1, heads.shape[-1]).swapaxes(1, 2)[:, :length]
