"""Block-sparse attention in Triton, forward: one program is one task of one head of one text.

Legend: B batch, N heads, L length, T tasks of a head, S slots in a task, E tasks that are parts, G blocks that have
parts, M the most parts of a block, W block size, H head size; BQ queries of a tile, BK keys of a tile, BH the head size
that a tile holds.
Exponents are to the base 2, because that is what the hardware has.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1.0e30)  # a score so low that exp2 gives 0


@triton.jit
def attend(
    q, k, v, mask, rows, blocks, counts, lives, context, logs, parts, part_logs,
    N, L, T, S, E, scale, q_b, q_n, q_l, k_b, k_n, k_l, v_b, v_n, v_l, m_b,
    W: tl.constexpr, H: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the context [B, L, N, H] and the logs of sums [B, N, L] of whole blocks, and those of parts.

    parts: float32 [B, N, E, W, H], part_logs: float32 [B, N, E, W].
    """
    tiles: tl.constexpr = (W + BQ - 1) // BQ
    steps: tl.constexpr = (W + BK - 1) // BK
    pid = tl.program_id(0)
    tile, t, bn = pid % tiles, pid // tiles % T, pid // (tiles * T)
    b, n = (bn // N).to(tl.int64), bn % N
    at = n * T + t
    live = tl.load(lives + at)
    if live > 0:
        h = tl.arange(0, BH)
        inside = tile * BQ + tl.arange(0, BQ)
        row = tl.load(rows + at) * W + inside
        real = (inside < W) & (row < L)
        q_at = q + b * q_b + n * q_n + row[:, None].to(tl.int64) * q_l + h[None, :]
        x = tl.load(q_at, mask=real[:, None] & (h[None, :] < H), other=0.0)
        largest = tl.full([BQ], LOWEST, tl.float32)
        total = tl.zeros([BQ], tl.float32)
        gathered = tl.zeros([BQ, BH], tl.float32)
        for step in range(live * steps):
            slot, within = step // steps, (step % steps) * BK + tl.arange(0, BK)
            key = tl.load(blocks + at * S + slot) * W + within
            there = (within < W) & (key < L)
            allowed = tl.load(mask + b * m_b + key, mask=there, other=0) != 0
            bias = tl.where(allowed, tl.log2(tl.load(counts + at * S + slot).to(tl.float32)), LOWEST)
            cells, key64 = there[:, None] & (h[None, :] < H), key[:, None].to(tl.int64)
            keys = tl.load(k + b * k_b + n * k_n + key64 * k_l + h[None, :], mask=cells, other=0.0)
            scores = tl.dot(x, tl.trans(keys), input_precision=PRECISION) * scale + bias[None, :]
            new = tl.maximum(largest, tl.max(scores, 1))
            weights = tl.exp2(scores - new[:, None])
            keep = tl.exp2(largest - new)
            total = total * keep + tl.sum(weights, 1)
            values = tl.load(v + b * v_b + n * v_n + key64 * v_l + h[None, :], mask=cells, other=0.0)
            gathered = gathered * keep[:, None]
            gathered += tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
            largest = new
        gathered = gathered / total[:, None]
        log = largest + tl.log2(total)
        if t < E:
            place = (bn.to(tl.int64) * E + t) * W + inside
            tl.store(parts + place[:, None] * H + h[None, :], gathered, mask=(inside < W)[:, None] & (h[None, :] < H))
            tl.store(part_logs + place, log, mask=inside < W)
        else:
            asked = tl.load(mask + b * m_b + row, mask=real, other=0) != 0
            place = (b * L + row) * N + n
            written = tl.where(asked[:, None], gathered, 0.0).to(context.dtype.element_ty)
            tl.store(context + place[:, None] * H + h[None, :], written, mask=real[:, None] & (h[None, :] < H))
            tl.store(logs + bn.to(tl.int64) * L + row, log, mask=real)


@triton.jit
def add_up(
    mask, owners, parts_of, parts, part_logs, context, logs, N, L, E, G, M, m_b,
    W: tl.constexpr, H: tl.constexpr, BQ: tl.constexpr, BH: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Write the blocks that have parts. WEIGHTED: as softmaxes are added up, with logs; else as numbers."""
    tiles: tl.constexpr = (W + BQ - 1) // BQ
    pid = tl.program_id(0)
    tile, g, bn = pid % tiles, pid // tiles % G, pid // (tiles * G)
    b, n = (bn // N).to(tl.int64), bn % N
    owner = tl.load(owners + n * G + g)
    if owner >= 0:
        h = tl.arange(0, BH)
        inside = tile * BQ + tl.arange(0, BQ)
        row = owner * W + inside
        real = (inside < W) & (row < L)
        largest = tl.full([BQ], LOWEST * 2, tl.float32)
        total = tl.zeros([BQ], tl.float32)
        added = tl.zeros([BQ, BH], tl.float32)
        for m in range(M):
            part = tl.load(parts_of + (n * G + g) * M + m)
            if part >= 0:
                place = (bn.to(tl.int64) * E + part) * W + inside
                cells = (inside < W)[:, None] & (h[None, :] < H)
                one = tl.load(parts + place[:, None] * H + h[None, :], mask=cells, other=0.0)
                if WEIGHTED:
                    log = tl.load(part_logs + place, mask=inside < W, other=LOWEST)
                    new = tl.maximum(largest, log)
                    keep, weight = tl.exp2(largest - new), tl.exp2(log - new)
                    added = added * keep[:, None] + one * weight[:, None]
                    total = total * keep + weight
                    largest = new
                else:
                    added += one
        if WEIGHTED:
            added = added / total[:, None]
            tl.store(logs + bn.to(tl.int64) * L + row, largest + tl.log2(total), mask=real)
            asked = tl.load(mask + b * m_b + row, mask=real, other=0) != 0
            added = tl.where(asked[:, None], added, 0.0)
        place = ((b * L + row) * N + n)[:, None] * H + h[None, :]
        tl.store(context + place, added.to(context.dtype.element_ty), mask=real[:, None] & (h[None, :] < H))
