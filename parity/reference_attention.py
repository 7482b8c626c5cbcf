"""Attention in float64 NumPy, always dense: how often a block is listed enters the scores as log(multiplicity).

Legend: B batch, L length (of queries and keys), N heads, H head size, R rows of a chunk, n blocks of the pattern.

Source: the rules of bigbird/core/attention.py of google-research/bigbird, written as one softmax over all keys: a key
whose block is listed m times has the weight m exp(score), which is exp(score + log m), and 0 for m = 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bigbird_port.config import BigBirdConfig
from bigbird_port.pattern import rand_attn
from parity.reference_math import softmax

# Added to the score of a key that is masked. It absorbs any score, so a row that may see nothing sees all alike.
_MASKED = -1e30
_ROWS = 256  # query rows whose scores exist at a time


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
    """Return the random blocks [N, n-2, r] of a layer in evaluation."""
    N, r = config.num_attention_heads, config.num_random_blocks
    if config.random_blocks == "transformers":
        return np.zeros((N, n - 2, r), np.int32)
    return rand_attn(N, n, config.block_size, r, seed=layer)


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

    def bias(self, b: int, head: int, rows: np.ndarray) -> np.ndarray:
        """Return what is added to the scores of some query rows of one head, [R, L]."""
        length = self.mask.shape[-1]
        allowed = self.mask[b, rows] if self.mask.ndim == 3 else np.tile(self.mask[b], (len(rows), 1))
        if self.causal and self.mask.ndim == 2:
            allowed &= np.arange(length) <= rows[:, None]
        bias = np.where(allowed, 0.0, _MASKED)
        if self.counts is not None:
            blocks = np.arange(length) // self.block_size
            times = self.counts[head][rows // self.block_size][:, blocks]
            bias += np.log(times, out=np.full(times.shape, -np.inf), where=times > 0)
        return bias

    def live_queries(self) -> np.ndarray:
        """Return the factor of the contexts, [B, L]: block-sparse attention gives 0 to padded queries."""
        return self.mask.astype(np.float64) if self.counts is not None else np.ones(self.mask.shape[:2])


def attend(q_BNLH: np.ndarray, k_BNLH: np.ndarray, v_BNLH: np.ndarray, visibility: Visibility) -> np.ndarray:
    """Return the context [B, L, N, H]; scores exist for one head and a chunk of query rows at a time."""
    B, N, L, H = q_BNLH.shape
    context_BLNH = np.empty((B, L, N, H))
    for b, head, rows in _chunks(B, N, L):
        probabilities_RL = _probabilities(q_BNLH[b, head, rows], k_BNLH[b, head], visibility.bias(b, head, rows))
        context_BLNH[b, rows, head] = probabilities_RL @ v_BNLH[b, head]
    context_BLNH *= visibility.live_queries()[:, :, None, None]
    return context_BLNH


def attend_backward(
    q_BNLH: np.ndarray, k_BNLH: np.ndarray, v_BNLH: np.ndarray, visibility: Visibility, d_context_BLNH: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of queries, keys and values, [B, N, L, H], from that of the context."""
    B, N, L, H = q_BNLH.shape
    d_q, d_k, d_v = (np.zeros((B, N, L, H)) for _ in range(3))
    d_context_BLNH = d_context_BLNH * visibility.live_queries()[:, :, None, None]
    for b, head, rows in _chunks(B, N, L):
        q_RH, k_LH, v_LH = q_BNLH[b, head, rows], k_BNLH[b, head], v_BNLH[b, head]
        p_RL = _probabilities(q_RH, k_LH, visibility.bias(b, head, rows))
        d_context_RH = d_context_BLNH[b, rows, head]
        d_v[b, head] += p_RL.T @ d_context_RH
        d_p_RL = d_context_RH @ v_LH.T
        d_scores_RL = p_RL * (d_p_RL - (p_RL * d_p_RL).sum(axis=-1, keepdims=True)) / math.sqrt(H)
        d_q[b, head, rows] = d_scores_RL @ k_LH
        d_k[b, head] += d_scores_RL.T @ q_RH
    return d_q, d_k, d_v


def _probabilities(q_RH: np.ndarray, k_LH: np.ndarray, bias_RL: np.ndarray) -> np.ndarray:
    scores_RL = q_RH @ k_LH.T
    scores_RL /= math.sqrt(q_RH.shape[-1])
    scores_RL += bias_RL
    return softmax(scores_RL)


def _chunks(B: int, N: int, L: int) -> Iterator[tuple[int, int, np.ndarray]]:
    for b, head in np.ndindex(B, N):
        for start in range(0, L, _ROWS):
            yield b, head, np.arange(start, min(start + _ROWS, L))
