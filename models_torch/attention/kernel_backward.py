"""The gradient of block-sparse attention in Triton: a task over query blocks, and a task over key blocks.

Every gradient is written by one program, or by the parts of a block, which are added up in one order: no atomics, and
so the same bits on every run.

Legend: as in kernel_forward.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1.0e30)


@triton.jit
def deltas(
    context, grad, mask, delta, N, L, g_b, g_n, g_l, m_b,
    H: tl.constexpr, BQ: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Write the sum of context x gradient of each query, [B, N, L]: what all its scores have in common."""
    tiles = tl.cdiv(L, BQ)
    pid = tl.program_id(0)
    bn = pid // tiles
    b, n = (bn // N).to(tl.int64), bn % N
    h, row = tl.arange(0, BH), pid % tiles * BQ + tl.arange(0, BQ)
    asked = tl.load(mask + b * m_b + row, mask=row < L, other=0) != 0
    cells = asked[:, None] & (h[None, :] < H)
    out = tl.load(context + ((b * L + row) * N + n)[:, None] * H + h[None, :], mask=cells, other=0.0).to(tl.float32)
    back = tl.load(grad + b * g_b + n * g_n + row[:, None].to(tl.int64) * g_l + h[None, :], mask=cells, other=0.0)
    tl.store(delta + bn.to(tl.int64) * L + row, tl.sum(out * back.to(tl.float32), 1), mask=row < L)


@triton.jit
def of_queries(
    q, k, v, mask, grad, logs, delta, rows, blocks, counts, lives, dq, parts,
    N, L, T, S, E, scale, plain_scale, q_b, q_n, q_l, k_b, k_n, k_l, v_b, v_n, v_l, g_b, g_n, g_l, m_b,
    W: tl.constexpr, H: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the queries, [B, L, N, H], and of parts, float32 [B, N, E, W, H]."""
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
        asked = tl.load(mask + b * m_b + row, mask=real, other=0) != 0
        row64 = row[:, None].to(tl.int64)
        x = tl.load(q + b * q_b + n * q_n + row64 * q_l + h[None, :], mask=real[:, None] & (h[None, :] < H), other=0.0)
        back = tl.load(
            grad + b * g_b + n * g_n + row64 * g_l + h[None, :], mask=asked[:, None] & (h[None, :] < H), other=0.0
        )
        log = tl.load(logs + bn.to(tl.int64) * L + row, mask=real, other=0.0)
        common = tl.load(delta + bn.to(tl.int64) * L + row, mask=real, other=0.0)
        added = tl.zeros([BQ, BH], tl.float32)
        for step in range(live * steps):
            slot, within = step // steps, (step % steps) * BK + tl.arange(0, BK)
            key = tl.load(blocks + at * S + slot) * W + within
            there = (within < W) & (key < L)
            allowed = tl.load(mask + b * m_b + key, mask=there, other=0) != 0
            bias = tl.where(allowed, tl.log2(tl.load(counts + at * S + slot).to(tl.float32)), LOWEST)
            cells, key64 = there[:, None] & (h[None, :] < H), key[:, None].to(tl.int64)
            keys = tl.load(k + b * k_b + n * k_n + key64 * k_l + h[None, :], mask=cells, other=0.0)
            values = tl.load(v + b * v_b + n * v_n + key64 * v_l + h[None, :], mask=cells, other=0.0)
            scores = tl.dot(x, tl.trans(keys), input_precision=PRECISION) * scale + bias[None, :]
            weights = tl.exp2(scores - log[:, None])
            slope = tl.dot(back, tl.trans(values), input_precision=PRECISION)
            slope = (weights * (slope - common[:, None])).to(keys.dtype)
            added += tl.dot(slope, keys, input_precision=PRECISION)
        added = tl.where(asked[:, None], added * plain_scale, 0.0)
        if t < E:
            place = ((bn.to(tl.int64) * E + t) * W + inside)[:, None] * H + h[None, :]
            tl.store(parts + place, added, mask=(inside < W)[:, None] & (h[None, :] < H))
        else:
            place = ((b * L + row) * N + n)[:, None] * H + h[None, :]
            tl.store(dq + place, added.to(dq.dtype.element_ty), mask=real[:, None] & (h[None, :] < H))


@triton.jit
def of_keys(
    q, k, v, mask, grad, logs, delta, rows, blocks, counts, lives, dk, dv, dk_parts, dv_parts,
    N, L, T, S, E, scale, plain_scale, q_b, q_n, q_l, k_b, k_n, k_l, v_b, v_n, v_l, g_b, g_n, g_l, m_b,
    W: tl.constexpr, H: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of keys and values, [B, L, N, H], and of parts; tasks and tiles BQ are over keys here."""
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
        key = tl.load(rows + at) * W + inside
        real = (inside < W) & (key < L)
        allowed = tl.load(mask + b * m_b + key, mask=real, other=0) != 0
        own, key64 = real[:, None] & (h[None, :] < H), key[:, None].to(tl.int64)
        keys = tl.load(k + b * k_b + n * k_n + key64 * k_l + h[None, :], mask=own, other=0.0)
        values = tl.load(v + b * v_b + n * v_n + key64 * v_l + h[None, :], mask=own, other=0.0)
        dkeys = tl.zeros([BQ, BH], tl.float32)
        dvalues = tl.zeros([BQ, BH], tl.float32)
        for step in range(live * steps):
            slot, within = step // steps, (step % steps) * BK + tl.arange(0, BK)
            row = tl.load(blocks + at * S + slot) * W + within
            there = (within < W) & (row < L)
            asked = tl.load(mask + b * m_b + row, mask=there, other=0) != 0
            times = tl.log2(tl.load(counts + at * S + slot).to(tl.float32))
            row64 = row[:, None].to(tl.int64)
            cells = asked[:, None] & (h[None, :] < H)
            x = tl.load(q + b * q_b + n * q_n + row64 * q_l + h[None, :], mask=cells, other=0.0)
            back = tl.load(grad + b * g_b + n * g_n + row64 * g_l + h[None, :], mask=cells, other=0.0)
            log = tl.load(logs + bn.to(tl.int64) * L + row, mask=asked, other=0.0)
            common = tl.load(delta + bn.to(tl.int64) * L + row, mask=asked, other=0.0)
            scores = tl.dot(keys, tl.trans(x), input_precision=PRECISION) * scale + times - log[None, :]
            weights = tl.where(allowed[:, None] & asked[None, :], tl.exp2(scores), 0.0)
            dvalues += tl.dot(weights.to(back.dtype), back, input_precision=PRECISION)
            slope = tl.dot(values, tl.trans(back), input_precision=PRECISION)
            slope = (weights * (slope - common[None, :])).to(x.dtype)
            dkeys += tl.dot(slope, x, input_precision=PRECISION)
        dkeys = dkeys * plain_scale
        if t < E:
            place = ((bn.to(tl.int64) * E + t) * W + inside)[:, None] * H + h[None, :]
            of_part = (inside < W)[:, None] & (h[None, :] < H)
            tl.store(dk_parts + place, dkeys, mask=of_part)
            tl.store(dv_parts + place, dvalues, mask=of_part)
        else:
            place = ((b * L + key) * N + n)[:, None] * H + h[None, :]
            tl.store(dk + place, dkeys.to(dk.dtype.element_ty), mask=own)
            tl.store(dv + place, dvalues.to(dv.dtype.element_ty), mask=own)
