"""Attention in float64 NumPy, always dense: how often a block is listed enters the scores as log(multiplicity).

Legend: B batch, L length (of queries and keys), N heads, H head size, R rows of a chunk, K keys that these may see,
n blocks of the pattern.

Source: the rules of bigbird/core/attention.py of google-research/bigbird, written as one softmax over all keys: a key
whose block is listed m times has the weight m exp(score), which is exp(score + log m), and 0 for m = 0. Keys whose
blocks none of a chunk's queries lists are left out, because their weight is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.reference.operations import softmax
from parity.reference.pattern import draw
from parity.reference.rounding import is_exact, lossy

# Added to the score of a key that is masked. It absorbs any score, so a row that may see nothing sees all alike.
_MASKED = -1e30
_ROWS = 256  # query rows whose scores exist at a time, in full attention


def multiplicity(random_blocks: np.ndarray) -> np.ndarray:
    """Return how often each query block lists each key block, int [N, n, n], from random blocks [N, n-2, r].

    Blocks 0 and n-1 attend to everything once. Block i lists 0, n-1, its window and its random blocks; the window
    of block 1 has no left part (it is block 0) and that of block n-2 no right one (it is block n-1).
    """
    N, inner, _ = random_blocks.shape
    n = inner + 2
    counts = np.zeros((N, n, n), np.int64)
    counts[:, [0, n - 1]] = 1
    for i in range(1, n - 1):
        window = [block for block in (i - 1, i, i + 1) if 0 < block < n - 1]
        counts[:, i, [0, *window, n - 1]] = 1
        for head in range(N):
            np.add.at(counts[head, i], random_blocks[head, i - 1], 1)
    return counts


def random_blocks_of(config: BigBirdConfig, layer: int, n: int) -> np.ndarray:
    """Return the random blocks [N, n-2, r] of a layer in evaluation; raises ValueError where there is no plan."""
    N, r = config.num_attention_heads, config.num_random_blocks
    if config.random_blocks == "transformers":
        return np.zeros((N, n - 2, r), np.int32)
    drawn = draw(N, n, config.block_size, r, layer)
    if drawn is None:
        raise ValueError(f"the original has no plan of random blocks for {n} blocks of {config.block_size} tokens")
    return drawn


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which keys the queries of one layer see, and how often.

    mask: bool [B, L], True for real tokens, or [B, L, L], True where a query sees a key. counts: multiplicity's, or
    None for full attention. causal: a query sees no later key (a mask [B, L, L] says alone who sees whom).
    """

    mask: np.ndarray
    counts: np.ndarray | None
    block_size: int
    causal: bool

    def keys(self, head: int, rows: np.ndarray) -> np.ndarray:
        """Return the keys [K] whose blocks any of some query rows lists; all of them in full attention."""
        keys = np.arange(self.mask.shape[-1])
        if self.counts is None:
            return keys
        listed = self.counts[head][np.unique(rows // self.block_size)].any(axis=0)
        return keys[listed[keys // self.block_size]]

    def bias(self, b: int, head: int, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return what is added to the scores of some query rows and keys of one head, [R, K]."""
        allowed = self.mask[b, rows][:, keys] if self.mask.ndim == 3 else np.tile(self.mask[b, keys], (len(rows), 1))
        if self.causal and self.mask.ndim == 2:
            allowed &= keys <= rows[:, None]
        bias = np.where(allowed, 0.0, _MASKED)
        if self.counts is not None:
            times = self.counts[head][np.ix_(rows // self.block_size, keys // self.block_size)]
            bias += np.log(times, out=np.full(times.shape, -np.inf), where=times > 0)
        return bias

    def live_queries(self) -> np.ndarray:
        """Return the factor of the contexts, [B, L]: block-sparse attention gives 0 to padded queries."""
        return self.mask.astype(np.float64) if self.counts is not None else np.ones(self.mask.shape[:2])


def attend(q_BNLH: np.ndarray, k_BNLH: np.ndarray, v_BNLH: np.ndarray, visibility: Visibility) -> np.ndarray:
    """Return the context [B, L, N, H]; scores exist for one head and a chunk of query rows at a time."""
    B, N, L, H = q_BNLH.shape
    context_BLNH = np.empty((B, L, N, H))
    with _one_thread():
        for b, head, rows, keys in _chunks(B, N, L, visibility):
            bias_RK = visibility.bias(b, head, rows, keys)
            p_RK = _probabilities(q_BNLH[b, head, rows], k_BNLH[b, head, keys], bias_RK)
            context_BLNH[b, rows, head] = lossy(p_RK, len(keys)) @ lossy(v_BNLH[b, head, keys], len(keys))
    context_BLNH *= visibility.live_queries()[:, :, None, None]
    return context_BLNH


def attend_backward(
    q_BNLH: np.ndarray, k_BNLH: np.ndarray, v_BNLH: np.ndarray, visibility: Visibility, d_context_BLNH: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of queries, keys and values, of their shapes, from that of the context."""
    B, N, L, H = q_BNLH.shape
    d_q, d_k, d_v = (np.zeros(x.shape) for x in (q_BNLH, k_BNLH, v_BNLH))
    d_context_BLNH = d_context_BLNH * visibility.live_queries()[:, :, None, None]
    with _one_thread():
        for b, head, rows, keys in _chunks(B, N, L, visibility):
            q_RH, k_KH, v_KH = q_BNLH[b, head, rows], k_BNLH[b, head, keys], v_BNLH[b, head, keys]
            p_RK = _probabilities(q_RH, k_KH, visibility.bias(b, head, rows, keys))
            d_context_RH = d_context_BLNH[b, rows, head]
            d_v[b, head, keys] += lossy(p_RK, L).T @ lossy(d_context_RH, L)
            d_p_RK = lossy(d_context_RH, H) @ lossy(v_KH, H).T
            # a framework may take this sum from context x gradient, whose errors are not those of d_p
            other_RK = d_p_RK if is_exact() else lossy(d_context_RH, H) @ lossy(v_KH, H).T
            along_R1 = (lossy(p_RK, len(keys)) * other_RK).sum(axis=-1, keepdims=True)
            d_scores_RK = lossy(p_RK * (d_p_RK - lossy(along_R1)) / math.sqrt(H))
            d_q[b, head, rows] = lossy(d_scores_RK, len(keys)) @ lossy(k_KH, len(keys))
            d_k[b, head, keys] += lossy(d_scores_RK, L).T @ lossy(q_RH, L)
    return d_q, d_k, d_v


def _one_thread() -> AbstractContextManager[object]:
    """BLAS on one thread: in thousands of small products, threads wait for each other longer than they work."""
    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits


def _probabilities(q_RH: np.ndarray, k_KH: np.ndarray, bias_RK: np.ndarray) -> np.ndarray:
    H = q_RH.shape[-1]
    scores_RK = lossy(q_RH, H) @ lossy(k_KH, H).T
    scores_RK /= math.sqrt(H)
    scores_RK = lossy(scores_RK)
    scores_RK += bias_RK
    return softmax(scores_RK)


def _chunks(B: int, N: int, L: int, visibility: Visibility) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Text, head, query rows and the keys that these may see; a block of queries at a time where it has a list."""
    step = _ROWS if visibility.counts is None else visibility.block_size
    for start in range(0, L, step):
        rows = np.arange(start, min(start + step, L))
        for head in range(N):
            keys = visibility.keys(head, rows)
            for b in range(B):
                yield b, head, rows, keys
