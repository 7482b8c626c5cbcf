"""Block-sparse attention by the kernels for TPUs, from and to the arrays of the models.

Legend: as in kernel_forward.py, and N heads, H head size, L positions in a row of texts, whole blocks.
"""

from __future__ import annotations

import math

from jax import Array, lax
from jax import numpy as jnp

from models_flax.attention.kernel_backward import backward
from models_flax.attention.kernel_forward import forward
from models_flax.attention.kernel_layout import LANES, ROOM, Sizes, Tables, held, make_tables
from models_flax.attention.lists import KeyLists

SUBLANES = 8  # a block is cut out of rows that lie in eights
LISTS_AT_ONCE = 4  # lists in a step of the grid: their work overlaps, and the code grows with them


def fits(q_BNLH: Array, v_BNLH: Array) -> bool:
    """Whether the kernels can do this: bfloat16 or float32, values as wide as keys, and a row that fits in VMEM."""
    _, N, L, H = q_BNLH.shape
    heads, head = _group(N, H)
    kind = q_BNLH.dtype
    fitting = held(L, heads * head, kind, times=1) <= ROOM
    return kind in (jnp.bfloat16, jnp.float32) and q_BNLH.shape == v_BNLH.shape and fitting


def attend(block_size: int, lists: KeyLists, *arrays: Array) -> tuple[Array, Array]:
    """Return the context [B, N, L, H], 0 for padded queries, and the log of each query's sum of weights [B, N, L].

    arrays: q, k, v [B, N, L, H], and the mask [B, L].
    """
    layout = _Layout(block_size, lists, arrays[0])
    context_BLD, log_BUPR = forward(tuple(map(layout.joined, arrays[:3])), layout.tables(arrays[3]), layout.sizes)
    return layout.split(context_BLD), layout.by_query(log_BUPR)


def gradients(block_size: int, lists: KeyLists, *arrays: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of queries, keys and values, [B, N, L, H].

    arrays: those of ``attend``, what it returned, and the gradient of the context.
    """
    q, k, v, mask_BL, context, log_BNL, grad = arrays
    layout = _Layout(block_size, lists, q)
    inputs = tuple(map(layout.joined, (q, k, v, context, grad)))
    found = backward(inputs, layout.by_list(log_BNL), layout.tables(mask_BL), layout.sizes)
    dq, dk, dv = map(layout.split, found)
    return dq, dk, dv


class _Layout:
    """The ways between the arrays of the models and those of the kernels, of one row of texts and its lists."""

    def __init__(self, block_size: int, lists: KeyLists, q_BNLH: Array) -> None:
        self.B, self.N, L, self.H = q_BNLH.shape
        self.lists, self.W, self.P = lists, block_size, L // block_size
        self.sizes = Sizes(
            *_group(self.N, self.H),
            block=-(-self.W // SUBLANES) * SUBLANES,
            slots=lists.counts.shape[2],
            at_once=LISTS_AT_ONCE,
            scale=1 / math.sqrt(self.H),
            precision=None if q_BNLH.dtype == jnp.float32 else lax.Precision.DEFAULT,  # None: as the caller has it
        )
        # Queries that are added to a block, heads that fill the last group, and lanes that are added to a head.
        self.more_W = self.sizes.block - self.W
        self.more_N = -self.N % self.sizes.heads
        self.more_H = self.sizes.head - self.H

    def tables(self, mask_BL: Array) -> Tables:
        mask_BPW = jnp.pad(mask_BL.reshape(self.B, self.P, self.W), ((0, 0), (0, 0), (0, self.more_W)))
        return make_tables(self.lists, mask_BPW, self.N + self.more_N, self.sizes)

    def joined(self, x_BNLH: Array) -> Array:
        """[B, L, N H], as the projections left it, unless heads or blocks have to be wider or more."""
        x_BPWNH = x_BNLH.swapaxes(1, 2).reshape(self.B, self.P, self.W, self.N, self.H)
        if self.more_W or self.more_N or self.more_H:
            x_BPWNH = jnp.pad(x_BPWNH, ((0, 0), (0, 0), (0, self.more_W), (0, self.more_N), (0, self.more_H)))
        return x_BPWNH.reshape(self.B, self.P * self.sizes.block, -1)

    def split(self, x_BLD: Array) -> Array:
        """The way back, [B, N, L, H]."""
        x_BPWNH = x_BLD.reshape(self.B, self.P, self.sizes.block, -1, self.sizes.head)
        x_BPWNH = x_BPWNH[:, :, : self.W, : self.N, : self.H]
        return x_BPWNH.reshape(self.B, -1, self.N, self.H).swapaxes(1, 2)

    def by_query(self, x_BUPR: Array) -> Array:
        """A number for each query of each head, [B, N, L], of the kernels' [B, U, P, R]."""
        x_BUPAW = x_BUPR.reshape(self.B, -1, self.P, self.sizes.heads, self.sizes.block)
        x_BNPW = x_BUPAW.swapaxes(2, 3).reshape(self.B, -1, self.P, self.sizes.block)
        return x_BNPW[:, : self.N, :, : self.W].reshape(self.B, self.N, -1)

    def by_list(self, x_BNL: Array) -> Array:
        """The way back."""
        x_BNPW = x_BNL.reshape(self.B, self.N, self.P, self.W)
        x_BNPW = jnp.pad(x_BNPW, ((0, 0), (0, self.more_N), (0, 0), (0, self.more_W)))
        x_BUAPW = x_BNPW.reshape(self.B, -1, self.sizes.heads, self.P, self.sizes.block)
        return x_BUAPW.swapaxes(2, 3).reshape(self.B, -1, self.P, self.sizes.rows)


def _group(N: int, H: int) -> tuple[int, int]:
    """How many heads share the lanes, and the lanes of each: H, or more so that whole heads fill them."""
    head = -(-H // LANES) * LANES if H > LANES // 2 else 1 << (H - 1).bit_length()
    return min(N, max(1, LANES // head)), head
