"""Block-sparse attention in kernels of this project (Triton), where they can be compiled; elsewhere batched.py runs.

Legend: B batch, N heads, L length, H head size, W block size, T tasks of a head, S slots in a task, E tasks that are
parts, G blocks that have parts, M the most parts of a block.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigbird_port.sparse.tasks import Tasks

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAST_BLOCK = 16  # matrix units multiply tiles of 16
WIDEST_HEAD = 256
MOST_ROWS, MOST_OTHERS = 64, 32  # of a tile: of the task's own block, and of those that it meets
LOG2E = math.log2(math.e)


class TaskTables(NamedTuple):
    """A Tasks on a device, int32, heads first: rows [N, T], blocks, counts [N, T, S], owners [N, G], parts [N, G, M].

    lives: [N, T], how many slots hold a block.
    """

    rows: Tensor
    blocks: Tensor
    counts: Tensor
    lives: Tensor
    owners: Tensor
    parts: Tensor
    part_tasks: int


class Launch(NamedTuple):
    """What the kernels run on: tasks over query blocks and over key blocks."""

    queries: TaskTables
    keys: TaskTables
    block_size: int


def task_tables(tasks: Tasks, device: torch.device) -> TaskTables:
    """Move tasks to a device."""
    lives = (tasks.counts > 0).sum(-1).astype("int32")
    arrays = (tasks.rows, tasks.blocks, tasks.counts, lives, tasks.owners, tasks.parts)
    return TaskTables._make([*(torch.tensor(x, device=device) for x in arrays), tasks.part_tasks])


@functools.cache
def installed() -> bool:
    """Whether Triton is there: bigbird-port[cuda]."""
    return importlib.util.find_spec("triton") is not None


def suit(q_BNLH: Tensor, v_BNLH: Tensor, block_size: int) -> bool:
    """Whether the kernels compute this: else batched.py does, which knows transforms, compilers and every type.

    They run on a device with matrix units that Triton knows, and on a CPU in Triton's interpreter.
    """
    H = q_BNLH.shape[-1]
    known = q_BNLH.dtype in DTYPES and v_BNLH.shape == q_BNLH.shape and H <= WIDEST_HEAD and block_size >= LEAST_BLOCK
    plain = not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())
    return known and plain and installed() and _runs_on(q_BNLH.device)


def _runs_on(device: torch.device) -> bool:
    if device.type != "cuda":
        return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)


class Kernels(torch.autograd.Function):
    """Block-sparse attention [B, L, N, H] of q, k, v [B, N, L, H], of which L need not be whole blocks.

    again: the same in ordinary operations, which has the second derivative.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask_BL: Tensor, launch: Launch, again: Any) -> Tensor:
        """Run the kernels."""
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        context_BLNH, logs_BNL = forward(q, k, v, mask_BL, launch)
        ctx.save_for_backward(q, k, v, mask_BL, context_BLNH, logs_BNL)
        ctx.launch, ctx.again = launch, again
        return context_BLNH

    @staticmethod
    def backward(ctx: Any, grad_BLNH: Tensor) -> tuple[Tensor | None, ...]:
        """Run the kernels of the gradient; ordinary operations where a second derivative is wanted."""
        q, k, v, mask_BL, context_BLNH, logs_BNL = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *torch.autograd.grad(ctx.again(q, k, v), (q, k, v), grad_BLNH, create_graph=True), None, None, None
        found = gradient(q, k, v, mask_BL, ctx.launch, context_BLNH, logs_BNL, grad_BLNH)
        return *(x.transpose(1, 2) for x in found), None, None, None


def forward(q: Tensor, k: Tensor, v: Tensor, mask_BL: Tensor, launch: Launch) -> tuple[Tensor, Tensor]:
    """Return the context [B, L, N, H] and each query's log2 of its sum of weights, float32 [B, N, L]."""
    from models_torch.attention import kernel_forward as kernels

    (B, N, L, H), tasks, W = q.shape, launch.queries, launch.block_size
    context_BLNH, logs_BNL = q.new_empty(B, L, N, H), q.new_empty(B, N, L, dtype=torch.float32)
    (parts,), part_logs = _parts(tasks, q, W, 1), q.new_empty(B, N, tasks.part_tasks, W, dtype=torch.float32)
    kernels.attend[(_programs(tasks.rows.shape[1], q, W),)](
        *(q, k, v, _bytes(mask_BL), tasks.rows, tasks.blocks, tasks.counts, tasks.lives),
        *(context_BLNH, logs_BNL, parts, part_logs),
        *(N, L, *tasks.blocks.shape[1:], tasks.part_tasks, LOG2E / math.sqrt(H)),
        *(*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], mask_BL.stride(0)),
        **_tiles(q, W),
    )
    _add_up(tasks, mask_BL, parts, part_logs, context_BLNH, logs_BNL, W, True)
    return context_BLNH, logs_BNL


def gradient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask_BL: Tensor,
    launch: Launch,
    context_BLNH: Tensor,
    logs_BNL: Tensor,
    grad_BLNH: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values, [B, L, N, H] each."""
    from models_torch.attention import kernel_backward as kernels

    (B, N, L, H), W = q.shape, launch.block_size
    grad = grad_BLNH.to(q.dtype)
    grad = (grad if grad.stride(-1) == 1 else grad.contiguous()).transpose(1, 2)
    delta_BNL, tiles = torch.empty_like(logs_BNL), _tiles(q, W)
    rows, wide = tiles["BQ"], tiles["BH"]
    exact = q.dtype == torch.float32 and tiles["PRECISION"] == "ieee"
    kernels.deltas[(-(-L // rows) * B * N,)](
        *(context_BLNH, grad, _bytes(mask_BL), delta_BNL, N, L, *grad.stride()[:3], mask_BL.stride(0)),
        H=H,
        BQ=rows,
        BH=wide,
    )
    dq, dk, dv = (q.new_empty(B, L, N, H) for _ in range(3))
    given = (q, k, v, _bytes(mask_BL), grad, logs_BNL, delta_BNL)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *grad.stride()[:3], mask_BL.stride(0))
    for kernel, tasks, made in ((kernels.of_queries, launch.queries, (dq,)), (kernels.of_keys, launch.keys, (dk, dv))):
        parts = _parts(tasks, q, W, len(made))
        kernel[(_programs(tasks.rows.shape[1], q, W),)](
            *(*given, tasks.rows, tasks.blocks, tasks.counts, tasks.lives, *made, *parts),
            *(N, L, *tasks.blocks.shape[1:], tasks.part_tasks, LOG2E / math.sqrt(H), 1 / math.sqrt(H), *strides),
            **tiles | compiled_for(rows, exact, tasks is launch.keys),
        )
        for whole, of_parts in zip(made, parts, strict=True):
            _add_up(tasks, mask_BL, of_parts, delta_BNL, whole, delta_BNL, W, False)
    return dq, dk, dv


def _add_up(
    tasks: TaskTables,
    mask_BL: Tensor,
    parts: Tensor,
    part_logs: Tensor,
    whole_BLNH: Tensor,
    logs: Tensor,
    W: int,
    weighted: bool,
) -> None:
    """Write the blocks that have parts."""
    from models_torch.attention import kernel_forward as kernels

    (B, L, N, H), (G, M) = whole_BLNH.shape, tasks.parts.shape[1:]
    if G == 0:
        return
    tiles = _tiles(whole_BLNH, W)
    kernels.add_up[(_tiles_of(W) * G * B * N,)](
        *(_bytes(mask_BL), tasks.owners, tasks.parts, parts, part_logs, whole_BLNH, logs),
        *(N, L, tasks.part_tasks, G, M, mask_BL.stride(0)),
        W=W,
        H=H,
        BQ=tiles["BQ"],
        BH=tiles["BH"],
        WEIGHTED=weighted,
    )


def _bytes(mask_BL: Tensor) -> Tensor:
    return mask_BL.view(torch.uint8)


def _parts(tasks: TaskTables, q: Tensor, W: int, count: int) -> list[Tensor]:
    """Room for what parts give, float32 [B, N, E, W, H] each."""
    B, N, _, H = q.shape
    return [q.new_empty(B, N, tasks.part_tasks, W, H, dtype=torch.float32) for _ in range(count)]


def _tiles_of(W: int) -> int:
    return -(-W // min(MOST_ROWS, 1 << (W - 1).bit_length()))


def _programs(tasks: int, q: Tensor, W: int) -> int:
    return _tiles_of(W) * tasks * q.shape[0] * q.shape[1]


def _tiles(x: Tensor, W: int) -> dict[str, Any]:
    """Sizes and choices that a kernel is compiled for; float32 is exact unless torch may use TF32 (its own setting)."""
    H, rows = x.shape[-1], min(MOST_ROWS, 1 << (W - 1).bit_length())
    exact = x.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    wide = max(16, 1 << (H - 1).bit_length())
    precision = "ieee" if exact or x.dtype != torch.float32 else "tf32"
    chosen = {"W": W, "H": H, "BQ": rows, "BK": min(rows, MOST_OTHERS), "BH": wide, "PRECISION": precision}
    return chosen | compiled_for(rows, exact)


def compiled_for(rows: int, exact: bool, over_keys: bool = False) -> dict[str, int]:
    """Return the warps and stages of a program: what keeps a tile in registers (docs/kernels-cuda.md).

    exact: whether float32 is multiplied without matrix units, for which the sums over keys take twice the warps.
    """
    return {"num_warps": max(2, rows // 8) * (2 if exact and over_keys else 1), "num_stages": 1 if over_keys else 2}
