"""Block-sparse attention by the kernels for TPUs, from and to the arrays of the models.

Legend: as in kernel_forward.py, and N heads, H head size, L length (a row of texts, in whole blocks).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from jax import Array, lax
from jax import numpy as jnp

from models_flax.attention.kernel_backward import backward
from models_flax.attention.kernel_forward import forward
from models_flax.attention.kernel_layout import LANES, MEBIBYTE, Sizes, make_tables
from models_flax.attention.lists import KeyLists

SUBLANES = 8  # a block is cut out of rows that lie in eights
LISTS_AT_ONCE = 2  # more do not overlap better, and take longer to compile
ROOM = 96 * MEBIBYTE  # of VMEM


def fits(q_BNLH: Array, v_BNLH: Array) -> bool:
    """Whether the kernels can do this: bfloat16 or float32, values as wide as keys, and a row that fits in VMEM."""
    _, N, L, H = q_BNLH.shape
    heads, head = _group(N, H)
    held = L * max(heads * head, LANES) * (7 * q_BNLH.dtype.itemsize + (8 if q_BNLH.dtype == jnp.bfloat16 else 0))
    return q_BNLH.dtype in (jnp.bfloat16, jnp.float32) and q_BNLH.shape == v_BNLH.shape and held <= ROOM


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def attention(
    q_BNLH: Array, k_BNLH: Array, v_BNLH: Array, mask_BL: Array, lists: KeyLists, block_size: int, interpret: bool
) -> Array:
    """Return what block_sparse_attention returns, [B, N, L, H]; ``interpret`` runs it on any device, slowly."""
    return _forward(q_BNLH, k_BNLH, v_BNLH, mask_BL, lists, block_size, interpret)[0]


def _forward(*arguments: Any) -> tuple[Array, tuple[Any, ...]]:
    q_BNLH, k_BNLH, v_BNLH, mask_BL, lists, block_size, interpret = arguments
    sizes = _sizes(q_BNLH, lists, block_size)
    tables = make_tables(lists, _blocks(mask_BL, block_size, sizes), _heads(q_BNLH, sizes), sizes)
    context_BLD, log = forward(*(_joined(x, block_size, sizes) for x in (q_BNLH, k_BNLH, v_BNLH)), tables, sizes, interpret)
    context_BNLH = _split(context_BLD, q_BNLH, block_size, sizes)
    return context_BNLH, (q_BNLH, k_BNLH, v_BNLH, mask_BL, lists, context_BNLH, log)


def _backward(block_size: int, interpret: bool, kept: tuple[Any, ...], grad_BNLH: Array) -> tuple[Any, ...]:
    q_BNLH, k_BNLH, v_BNLH, mask_BL, lists, context_BNLH, log_BUPR = kept
    sizes = _sizes(q_BNLH, lists, block_size)
    masks = _blocks(mask_BL, block_size, sizes)
    tables = make_tables(lists, masks, _heads(q_BNLH, sizes), sizes)
    delta_BNL = jnp.einsum("bnlh,bnlh->bnl", grad_BNLH, context_BNLH, preferred_element_type=jnp.float32)
    k_BNLH = jnp.where(mask_BL[:, None, :, None], k_BNLH, jnp.zeros((), k_BNLH.dtype))
    inputs = tuple(_joined(x, block_size, sizes) for x in (q_BNLH, k_BNLH, v_BNLH, grad_BNLH))
    delta_BUPR = _by_block(delta_BNL, block_size, sizes)
    found = backward(inputs, log_BUPR, delta_BUPR, tables, sizes, interpret)
    return *(_split(x, q_BNLH, block_size, sizes) for x in found), None, None


attention.defvjp(_forward, _backward)


def _group(N: int, H: int) -> tuple[int, int]:
    """How many heads share the lanes, and the lanes of each: H, or more so that whole heads fill them."""
    head = -(-H // LANES) * LANES if H > LANES // 2 else 1 << (H - 1).bit_length()
    return min(N, max(1, LANES // head)), head


def _sizes(q_BNLH: Array, lists: KeyLists, block_size: int) -> Sizes:
    _, N, _, H = q_BNLH.shape
    block = -(-block_size // SUBLANES) * SUBLANES
    wanted = jax.config.jax_default_matmul_precision
    exact = q_BNLH.dtype == jnp.float32 and wanted not in (None, "default", "bfloat16", "fastest")
    precision = lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT
    return Sizes(*_group(N, H), block, lists.counts.shape[2], LISTS_AT_ONCE, 1 / math.sqrt(H), precision)


def _heads(q_BNLH: Array, sizes: Sizes) -> int:
    """How many heads there are with those that fill the last group."""
    return -(-q_BNLH.shape[1] // sizes.heads) * sizes.heads


def _blocks(x_BL: Array, block_size: int, sizes: Sizes) -> Array:
    """Positions in blocks of the kernels' size, [B, P, W]; added ones are 0, and no real keys."""
    x_BPW = x_BL.reshape(len(x_BL), -1, block_size)
    return jnp.pad(x_BPW, ((0, 0), (0, 0), (0, sizes.block - block_size)))


def _joined(x_BNLH: Array, block_size: int, sizes: Sizes) -> Array:
    """[B, L, N H], as the projections left it, unless heads or blocks have to be wider or more."""
    B, N, L, H = x_BNLH.shape
    x_BPWNH = x_BNLH.swapaxes(1, 2).reshape(B, L // block_size, block_size, N, H)
    added = sizes.block - block_size, _heads(x_BNLH, sizes) - N, sizes.head - H
    if any(added):
        x_BPWNH = jnp.pad(x_BPWNH, ((0, 0), (0, 0), *((0, more) for more in added)))
    return x_BPWNH.reshape(B, x_BPWNH.shape[1] * sizes.block, -1)


def _split(x_BLD: Array, like_BNLH: Array, block_size: int, sizes: Sizes) -> Array:
    """The way back, [B, N, L, H]."""
    B, N, L, H = like_BNLH.shape
    x_BPWNH = x_BLD.reshape(B, L // block_size, sizes.block, -1, sizes.head)[:, :, :block_size, :N, :H]
    return x_BPWNH.reshape(B, L, N, H).swapaxes(1, 2)


def _by_block(x_BNL: Array, block_size: int, sizes: Sizes) -> Array:
    """A number for each query as the kernels keep it, [B, U, P, R]: the rows of a list in lanes."""
    B, N, L = x_BNL.shape
    x_BNPW = x_BNL.reshape(B, N, L // block_size, block_size)
    more = _heads(x_BNL, sizes) - N, 0, sizes.block - block_size
    x_BNPW = jnp.pad(x_BNPW, ((0, 0), *((0, n) for n in more)))
    x_BUAPW = x_BNPW.reshape(B, -1, sizes.heads, *x_BNPW.shape[2:])
    return x_BUAPW.swapaxes(2, 3).reshape(B, x_BUAPW.shape[1], -1, sizes.rows)
