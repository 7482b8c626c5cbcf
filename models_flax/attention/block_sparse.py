"""Block-sparse attention: each query block gathers the key blocks of its list.

Legend: B batch, L length, N heads, H head size, W block size, P blocks in a row of texts, T lists of key blocks, S
slots in such a list, C lists at once, Q query blocks with one list, G global query blocks, E lists of theirs, K keys, M
heads of all texts.

Sources: Zaheer et al. 2020, section 2; bigbird/core/attention.py of google-research/bigbird.
"""

from __future__ import annotations

from jax import Array
from jax import numpy as jnp

from bigbird_port.sparse.formulation import Formulation
from models_flax.attention import gradient
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

    The context of padded queries is 0. Some heads and lists at a time (``how``, None: as the target's formulation has
    it) keep memory linear in L; the gradient computes the probabilities again (in reverse mode, of any order; jax.jvp
    does not go through it). The batch is padded to whole blocks inside. Values may be wider than keys.
    """
    if isinstance(lists, SpreadLists):
        return lists.attention(q_BNLH, k_BNLH, v_BNLH, mask_BL, block_size)
    length = q_BNLH.shape[2]
    if missing := -length % block_size:
        q_BNLH, k_BNLH, v_BNLH = (jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) for x in (q_BNLH, k_BNLH, v_BNLH))
        mask_BL = jnp.pad(mask_BL, ((0, 0), (0, missing)))
    context_BNLH = gradient.attention(how, block_size, lists, q_BNLH, k_BNLH, v_BNLH, mask_BL)
    return context_BNLH.swapaxes(1, 2)[:, :length]
