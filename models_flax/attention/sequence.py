"""Block-sparse attention on a mesh of devices: each has some texts, some attention heads and some blocks of positions.

* Ordinary query blocks attend on their own device. It has its own key blocks, and copies of the few others that its
  lists name.
* Global query blocks attend to all keys, so all devices work on them. Each device makes a partial softmax over its own
  keys, and the partial softmaxes are combined.

Legend: B batch, L length, N heads, H head size, W block size, S slots in a list of key blocks, s devices along
"sequence", b blocks on each device, J key blocks that a device has (its own and copies), G shared blocks, g global
query blocks, Q queries, K keys. On a device, B, N and L count the device's own part.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
from jax import Array, lax
from jax import numpy as jnp
from jax.sharding import PartitionSpec

from bigbird_port.devices.exchange import Exchange, make_exchange
from bigbird_port.sparse.pattern import Pattern
from models_flax.attention.gathering import AtOnce, at_once, some_at_a_time
from models_flax.attention.plain import at_least_float32, attend, mask_bias
from models_flax.sharding import current_mesh
from models_flax.target import by_target

AXIS = "sequence"
_HEADS = PartitionSpec("data", "model", AXIS)  # [B, N, L, H]
_LISTS = (PartitionSpec(AXIS, "model"), PartitionSpec(AXIS, "model"), PartitionSpec(), PartitionSpec())

# For the body of a loop: the gradient runs it again, and nothing that the first run computed is kept.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


class _Block(NamedTuple):
    """Blocks that a device has: keys and values [B, N, J, W, H], mask [B, J, W]."""

    k: Array
    v: Array
    mask: Array


class SpreadLists(NamedTuple):
    """The arrays of an Exchange (bigbird_port.devices.exchange), in the place that KeyLists have on one device."""

    key_blocks: Array
    live: Array
    shared: Array
    global_blocks: Array

    def attention(self, q_BNLH: Array, k_BNLH: Array, v_BNLH: Array, mask_BL: Array, block_size: int) -> Array:
        """Return what block_sparse_attention returns on one device, [B, L, N, H].

        Meanwhile texts and positions are padded to a multiple of the devices.
        """
        mesh = current_mesh()
        assert mesh is not None  # spread_lists made these under one
        B, _, L, _ = q_BNLH.shape
        missing = -B % mesh.shape["data"], -L % (mesh.shape[AXIS] * block_size)
        q_BNLH, k_BNLH, v_BNLH = (
            jnp.pad(x, ((0, missing[0]), (0, 0), (0, missing[1]), (0, 0))) for x in (q_BNLH, k_BNLH, v_BNLH)
        )
        mask_BL = jnp.pad(mask_BL, ((0, missing[0]), (0, missing[1])))
        run = jax.shard_map(
            functools.partial(_on_device, W=block_size),
            in_specs=(_HEADS, _HEADS, _HEADS, PartitionSpec("data", AXIS), *_LISTS),
            out_specs=PartitionSpec("data", AXIS, "model"),
        )
        return run(q_BNLH, k_BNLH, v_BNLH, mask_BL, *self)[:B, :L]


def spread_lists(pattern: Pattern | None, blocks: int) -> SpreadLists | None:
    """Return the lists of a pattern for a batch of ``blocks`` blocks on the current mesh.

    Returns None without a pattern or without a mesh.
    """
    mesh = current_mesh()
    if mesh is None or pattern is None:
        return None
    exchange: Exchange = make_exchange(pattern, blocks, mesh.shape[AXIS])
    return SpreadLists(*(jnp.asarray(getattr(exchange, name)) for name in SpreadLists._fields))


def _on_device(q_BNLH: Array, k_BNLH: Array, v_BNLH: Array, mask_BL: Array, *arrays: Array, W: int) -> Array:
    """Return one device's part of the attention: [B, L, N, H] of its own texts, positions and attention heads."""
    q, k, v = (x.reshape(*x.shape[:2], -1, W, x.shape[-1]) for x in (q_BNLH, k_BNLH, v_BNLH))
    mask_BbW = mask_BL.reshape(len(mask_BL), -1, W)
    b, lists = q.shape[2], SpreadLists(*arrays)
    own = _Block(k, v, mask_BbW)
    at_hand = jax.tree.map(functools.partial(_at_hand, shared=lists.shared), own)
    context = _listed(q, at_hand, lists.key_blocks[0], lists.live[0])
    places = lists.global_blocks - lax.axis_index(AXIS) * b  # outside 0 .. b-1 for blocks of other devices
    context = context.at[:, :, _inside(places, b)].set(_to_all_keys(q, own, places), mode="drop")
    context *= mask_BbW[:, None, :, :, None]
    return context.reshape(*v_BNLH.shape).swapaxes(1, 2)


def _at_hand(x: Array, shared: Array) -> Array:
    """Return the blocks that a device needs, in the order of an Exchange's numbers.

    These are its own blocks, the neighbours' blocks that its windows reach, and the shared blocks.

    x: the device's own blocks, [B, N, b, W, H], or [B, b, W] of a mask.
    """
    axis = 2 if x.ndim == 5 else 1
    s, b, kind = lax.axis_size(AXIS), x.shape[axis], x.dtype
    x = x.astype(jnp.int32) if kind == jnp.bool_ else x  # booleans cannot be added up
    last, first = (lax.slice_in_dim(x, at, at + 1, axis=axis) for at in (b - 1, 0))
    before = lax.ppermute(last, AXIS, [(i, i + 1) for i in range(s - 1)])
    behind = lax.ppermute(first, AXIS, [(i + 1, i) for i in range(s - 1)])
    copies = _copies(x, shared - lax.axis_index(AXIS) * b, axis)
    return jnp.concatenate((x, before, behind, copies), axis=axis).astype(kind)


def _copies(x: Array, places: Array, axis: int) -> Array:
    """Return copies of the blocks at ``places`` along ``axis``, on every device.

    Each block lies on one device, where its place is in 0 .. b-1. The copies are a sum over all devices, to which the
    others add zeros. The volume of a sum does not grow with the number of devices, as sending to each of them would.
    """
    b = x.shape[axis]
    here = (places >= 0) & (places < b)
    found = jnp.take(x, jnp.clip(places, 0, b - 1), axis=axis)
    copies = lax.psum(jnp.where(here.reshape(-1, *(1,) * (x.ndim - axis - 1)), found, 0), AXIS)
    return lax.pcast(copies, AXIS, to="varying")  # gradients are summed here, not in the loops that use the copies


def _inside(places: Array, b: int) -> Array:
    """Return the places that are in 0 .. b-1. The others become b, which ``.at[]`` drops."""
    return jnp.where((places >= 0) & (places < b), places, b)


def _listed(q_BNbWH: Array, at_hand: _Block, key_blocks_NbS: Array, live_NbS: Array) -> Array:
    """Let each query block attend to its list, [B, N, b, W, H]."""
    B, N, b, W, _ = q_BNbWH.shape
    every_head = (
        *(x.reshape(B * N, *x.shape[2:]) for x in (q_BNbWH, at_hand.k, at_hand.v)),
        jnp.repeat(at_hand.mask, N, axis=0),
        *(jnp.tile(x, (B, 1, 1)) for x in (key_blocks_NbS, live_NbS)),
    )
    contexts = by_target(lambda how: at_once(how, B * N, b), _listed_of_heads, *every_head)
    return contexts.reshape(B, N, b, W, -1)


def _listed_of_heads(some: AtOnce, *heads: Array) -> Array:
    """Return the same for the attention heads of all texts, some of them at a time."""
    one_head = _recomputed(functools.partial(_listed_of_head, blocks=some.lists))
    return some_at_a_time(one_head, heads, some.heads)


def _listed_of_head(head: tuple[Array, ...], blocks: int) -> Array:
    """Return the same for one attention head of one text, [b, W, H], some query blocks at a time."""
    q_bWH, k_JWH, v_JWH, mask_JW, blocks_bS, live_bS = head

    def one_block(row: tuple[Array, ...]) -> Array:
        q_WH, blocks_S, live_S = row
        k_KH, v_KH = (x[blocks_S].reshape(-1, x.shape[-1]) for x in (k_JWH, v_JWH))
        allowed_SW = mask_JW[blocks_S] & live_S[:, None]
        return attend(q_WH, k_KH, v_KH, mask_bias(allowed_SW.reshape(-1), at_least_float32(q_WH)))

    return some_at_a_time(_recomputed(one_block), (q_bWH, blocks_bS, live_bS), blocks)


def _to_all_keys(q_BNbWH: Array, own: _Block, places: Array) -> Array:
    """Let the global query blocks attend to the keys of all devices, [B, N, g, W, H] on every device.

    Each device's softmax is over its own keys, relative to its own largest score.
    """
    B, N, _, W, _ = q_BNbWH.shape
    q_BNgWH = _copies(q_BNbWH, places, axis=2)
    every_head = (
        *(x.reshape(B * N, -1, x.shape[-1]) for x in (q_BNgWH, own.k, own.v)),
        jnp.repeat(own.mask.reshape(B, -1), N, axis=0),
    )
    contexts = _combined(*by_target(lambda how: at_once(how, B * N, 1), _partial_softmaxes, *every_head))
    return contexts.astype(own.v.dtype).reshape(B, N, -1, W, own.v.shape[-1])


def _combined(largest: Array, weights: Array, values: Array) -> Array:
    """Return the attention to all keys. Each device's partial softmax is rescaled to the largest score, then summed."""
    scale = jnp.exp(largest - lax.pmax(largest, AXIS))
    weights, values = lax.psum((weights * scale, values * scale), AXIS)
    return values / weights


def _partial_softmaxes(some: AtOnce, *heads: Array) -> tuple[Array, Array, Array]:
    """Return the partial softmax of the attention heads of all texts, some of them at a time."""
    return some_at_a_time(_recomputed(_partial_softmax), heads, some.heads)


def _partial_softmax(head: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """Return the largest score [Q, 1], sum of weights [Q, 1] and weighted values [Q, H] of some queries and keys."""
    q_QH, k_KH, v_KH, mask_K = head
    dtype = at_least_float32(q_QH)
    scores_QK = jnp.matmul(q_QH / q_QH.shape[-1] ** 0.5, k_KH.T, preferred_element_type=dtype)
    scores_QK += mask_bias(mask_K, dtype)
    largest_Q1 = lax.stop_gradient(scores_QK.max(axis=-1, keepdims=True))  # it cancels out
    weights_QK = jnp.exp(scores_QK - largest_Q1)
    values_QH = jnp.matmul(weights_QK.astype(v_KH.dtype), v_KH, preferred_element_type=dtype)
    return largest_Q1, weights_QK.sum(axis=-1, keepdims=True), values_QH
