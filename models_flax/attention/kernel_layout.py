"""What the forward and the backward kernel share: how heads, blocks and lists lie in memory, and the call.

Legend: as in kernel_forward.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import Array, lax
from jax import numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

from models_flax.attention.lists import KeyLists

Ref = Any  # Pallas has no type for what a kernel reads and writes

NEVER = -1e30  # the bias of a key that does not count: exp of it is 0, and two of them do not overflow
NN, NT, TN = (((axes), ((), ())) for axes in (((1,), (0,)), ((1,), (1,)), ((0,), (0,))))  # a b, a b^T, a^T b
LANES, MEBIBYTE = 128, 1 << 20
ROOM = 58 * MEBIBYTE  # of VMEM: the least that a TPU has is 64 MiB (v5p)


def held(length: int, lanes: int, dtype: DTypeLike, times: int) -> int:
    """Bytes of VMEM that a backward kernel holds of a row: keys, two sums in float32, and eight arrays so many times.

    Twice, the next group's arrays come and the last one's go while this one is worked on.
    """
    sums = 0 if dtype == jnp.float32 else 8
    return length * max(lanes, LANES) * (jnp.dtype(dtype).itemsize * (1 + 8 * times) + sums)


@dataclass(frozen=True)
class Sizes:
    """The sizes of one call of a kernel.

    heads: in a group; head: lanes of each. block: queries of a list, and keys of a slot. slots: of a list.
    at_once: lists in a step of the grid. scale: of the scores.
    """

    heads: int
    head: int
    block: int
    slots: int
    at_once: int
    scale: float
    precision: lax.Precision | None

    @property
    def lanes(self) -> int:
        return self.heads * self.head

    @property
    def rows(self) -> int:
        return self.heads * self.block

    def slot(self, t: Any, a: int, s: int) -> Any:
        """Where slot s of head a of list t stands among the slots of a group."""
        return (t * self.heads + a) * self.slots + s


class Tables(NamedTuple):
    """What the kernels know of the lists; T is rounded up to whole steps of the grid.

    rows: int32 [T], the query block of each list, and goes_on: whether it is that of the list before.
    blocks, extra: [U, 1, T A S], the key block of each slot, and what is added to its scores. They are flat because
        scalar memory is small, and the last axis of what lies there is rounded up to 128.
    masks: float32 [B, P, W], 0 or NEVER of each key.
    """

    rows: Array
    goes_on: Array
    blocks: Array
    extra: Array
    masks: Array


def make_tables(lists: KeyLists, mask_BPW: Array, heads: int, sizes: Sizes) -> Tables:
    """Lay the lists out for the kernels; ``heads`` counts those that were added to fill the last group."""
    rows = jnp.concatenate((lists.rows, lists.global_blocks[lists.parts])).astype(jnp.int32)
    missing = -len(rows) % sizes.at_once
    rows = jnp.concatenate((rows, jnp.broadcast_to(rows[-1:], (missing,))))  # that count 0 times
    goes_on = jnp.concatenate((jnp.zeros(1, jnp.int32), (rows[1:] == rows[:-1]).astype(jnp.int32)))

    def grouped(x_NTS: Array) -> Array:
        x_NTS = jnp.pad(x_NTS, ((0, heads - len(x_NTS)), (0, missing), (0, 0)))
        x_UATS = x_NTS.reshape(-1, sizes.heads, *x_NTS.shape[1:])
        return x_UATS.swapaxes(1, 2).reshape(len(x_UATS), 1, -1)

    blocks, counts = grouped(lists.key_blocks.astype(jnp.int32)), grouped(lists.counts)
    extra = jnp.where(counts > 0, jnp.log(jnp.maximum(counts, 1).astype(jnp.float32)), NEVER)
    return Tables(rows, goes_on, blocks, extra, jnp.where(mask_BPW, 0, NEVER).astype(jnp.float32))


def scaled(q_WD: Array, sizes: Sizes) -> Array:
    """Queries times the scale of the scores, in their own type."""
    return (q_WD.astype(jnp.float32) * sizes.scale).astype(q_WD.dtype)


def own_lanes(x_WD: Array, sizes: Sizes) -> Array:
    """Each head's rows with zeros in the lanes of the others, [R, D]: a product with them is a product per head."""
    return jnp.concatenate(parts(x_WD, sizes))


def parts(x_WD: Array, sizes: Sizes) -> list[Array]:
    """For each head the array with zeros in the lanes of the others."""
    lane, zeros = _lane(x_WD), jnp.zeros_like(x_WD)
    ends = [(a * sizes.head, (a + 1) * sizes.head) for a in range(sizes.heads)]
    return [x_WD] if sizes.heads == 1 else [jnp.where((lane >= low) & (lane < high), x_WD, zeros) for low, high in ends]


def by_head(x_RD: Array, sizes: Sizes) -> Array:
    """Of each head's rows its own lanes, [W, D]."""
    return _joined(sizes, [x_RD[a * sizes.block : (a + 1) * sizes.block] for a in range(sizes.heads)])


def picked(x: Ref, blocks: Ref, t: Any, sizes: Sizes) -> Array:
    """The key blocks of list t, [K, D]: in the lanes of each head those that its own list names."""
    return jnp.concatenate(
        [
            _joined(sizes, [x[0, positions(blocks[0, 0, sizes.slot(t, a, s)], sizes), :] for a in range(sizes.heads)])
            for s in range(sizes.slots)
        ]
    )


def _joined(sizes: Sizes, of_heads: list[Array]) -> Array:
    """Each head's own lanes of its array, [..., D]."""
    found, lane = of_heads[0], _lane(of_heads[0])
    for a, x in enumerate(of_heads[1:], start=1):
        found = jnp.where(lane >= a * sizes.head, x, found)
    return found


def _lane(like: Array) -> Array:
    return lax.broadcasted_iota(jnp.int32, like.shape, like.ndim - 1)


def positions(block: Any, sizes: Sizes) -> Any:
    """Where a block stands in the row."""
    return pl.ds(pl.multiple_of(block * sizes.block, sizes.block), sizes.block)


def is_real(masks: Ref, block: Any) -> Array:
    """Which positions of a block are no padding, [W, 1]."""
    return as_column(masks[0, pl.ds(block, 1), :]) == 0


def on_each_block(step: Any, masks: Ref, sizes: Sizes) -> Callable[[Callable[[Any, Array], None]], None]:
    """Call a function with each block's positions and which of them are real, in one step of each group of heads."""

    def decorate(function: Callable[[Any, Array], None]) -> None:
        @pl.when(pl.program_id(2) == step)
        def _() -> None:
            @pl.loop(0, masks.shape[1])
            def _(block: Any) -> None:
                function(positions(block, sizes), is_real(masks, block))

    return decorate


def wide(x_RE: Array, width: int) -> Array:
    """Columns of one number each [R, E] (E is LANES, so that no number has to be spread), as many as are wanted."""
    return jnp.concatenate([x_RE] * -(-width // LANES), axis=1)[:, :width]


def as_row(x_R1: Array) -> Array:
    """A column as a row, [1, R], by a sum over a diagonal, which is less work than to transpose it."""
    return jnp.where(_diagonal(len(x_R1)), x_R1, 0).sum(axis=0, keepdims=True)


def as_column(x_1R: Array) -> Array:
    """A row as a column, [R, 1]."""
    return jnp.where(_diagonal(x_1R.shape[1]), x_1R, 0).sum(axis=1, keepdims=True)


def _diagonal(size: int) -> Array:
    return lax.broadcasted_iota(jnp.int32, (size, size), 0) == lax.broadcasted_iota(jnp.int32, (size, size), 1)


def call(
    kernel: Callable[..., None],
    tables: Tables,
    sizes: Sizes,
    *,
    name: str,
    grid: tuple[int, int],
    inputs: Sequence[tuple[Array, pl.BlockSpec]],
    outputs: Sequence[tuple[jax.ShapeDtypeStruct, pl.BlockSpec]],
    scratch: Sequence[Any],
    products: int,
) -> list[Array]:
    """Run a kernel for each text, group of heads and some lists; ``products``: how many it makes of each list."""
    steps = len(tables.rows) // sizes.at_once
    of_group = pl.BlockSpec((1, 1, tables.blocks.shape[2]), lambda b, u, t, *_: (u, 0, 0), memory_space=pltpu.SMEM)
    masks = pl.BlockSpec((1, *tables.masks.shape[1:]), lambda b, u, t, *_: (b, 0, 0))
    scores = math.prod(grid) * len(tables.rows) * sizes.rows * sizes.slots * sizes.block
    arrays, shapes = [x for x, _ in inputs], [shape for shape, _ in outputs]
    both: list[Any] = [*arrays, *shapes]
    moved = sum(math.prod(x.shape) * x.dtype.itemsize for x in both)
    run = functools.partial(
        pl.pallas_call,
        kernel,
        name=name,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(*grid, steps),
            in_specs=[of_group, of_group, masks, *(spec for _, spec in inputs)],
            out_specs=[spec for _, spec in outputs],
            scratch_shapes=scratch,
        ),
        out_shape=shapes,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=100 * MEBIBYTE
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * scores * sizes.lanes, transcendentals=scores, bytes_accessed=moved
        ),
    )
    # Elsewhere than on a TPU it is for tests, as no other device's formulation has kernels.
    return lax.platform_dependent(*tables, *arrays, tpu=run(interpret=False), default=run(interpret=True))
