"""Writing summaries as transformers' generate does: greedily, by drawing, or by its beam search. Each is one program.

Legend: B batch, T tokens that are written at most, S tokens with the start id, of which the first i + 1 are there,
M beams, V vocabulary, R rows (batch and beams), C candidates.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax
from jax import numpy as jnp

from bigbird_port.models.search import Search

NEVER = -1e9  # transformers' score of what cannot be


class Beams(NamedTuple):
    """What a beam search returns, best first among the finished: ids [B, M, T] and scores [B, M].

    A summary that has no end has the plain sum of its log-probabilities as its score in the original's search.
    """

    ids: Array
    scores: Array


def without(scores_RV: Array, ids_RS: Array, i: Any, search: Search, eos: int) -> Array:
    """Return scores without the tokens that would repeat an n-gram, and without an end that comes too early."""
    (R, V), S, n = scores_RV.shape, ids_RS.shape[1], search.no_repeat_ngram_size
    if 0 < n <= S:
        grams_RWn = jnp.stack([ids_RS[:, k : S - n + 1 + k] for k in range(n)], axis=-1)
        last_Rn = lax.dynamic_slice_in_dim(ids_RS, jnp.maximum(i + 2 - n, 0), n, axis=1)[:, : n - 1]
        there_W = jnp.arange(S - n + 1) + n <= i + 1
        again_RW = (grams_RWn[..., :-1] == last_Rn[:, None]).all(axis=-1) & there_W
        banned_RW = jnp.where(again_RW, grams_RWn[..., -1], V)
        mask_RV = jnp.zeros((R, V + 1), bool).at[jnp.arange(R)[:, None], banned_RW].set(True)[:, :V]
        scores_RV = jnp.where(mask_RV, -jnp.inf, scores_RV)
    early = (jnp.arange(V) == eos) & (i + 1 < search.min_length)
    return jnp.where(early, -jnp.inf, scores_RV)


def warped(scores_RV: Array, search: Search) -> Array:
    """Return scores at a temperature, of the best tokens alone."""
    scores_RV = scores_RV / search.temperature
    if search.top_k:
        last_R1 = lax.top_k(scores_RV, min(search.top_k, scores_RV.shape[1]))[0][:, -1:]
        scores_RV = jnp.where(scores_RV < last_R1, -jnp.inf, scores_RV)
    if search.top_p < 1:
        places_RV = scores_RV.argsort(axis=-1)
        sorted_RV = jnp.take_along_axis(scores_RV, places_RV, axis=-1)
        out_RV = jax.nn.softmax(sorted_RV).cumsum(axis=-1) <= 1 - search.top_p
        out_RV = out_RV.at[:, -1].set(False)
        rows_R1 = jnp.arange(len(scores_RV))[:, None]
        scores_RV = jnp.where(jnp.zeros_like(out_RV).at[rows_R1, places_RV].set(out_RV), -jnp.inf, scores_RV)
    return scores_RV


@functools.partial(jax.jit, static_argnums=(0, 1))
def write(decoder: Any, search: Search, params: Any, states_BLD: Array, mask_BL: Array, rng: Array) -> Array:
    """Return ids [B, T]: the best token each time, or one that is drawn; a text that has ended is followed by 0."""
    (first_BV, past), eos = decoder.start(params, states_BLD, mask_BL), decoder.config.eos_token_id
    B = len(first_BV)
    empty_BS = jnp.zeros((B, search.T + 1), jnp.int32).at[:, 0].set(decoder.config.decoder_start_token_id)

    def choose(i: Any, logits_BV: Array, ids_BS: Array, ended_B: Array, rng: Array) -> Any:
        scores_BV, (rng, own) = without(logits_BV.astype(jnp.float32), ids_BS, i, search, eos), jax.random.split(rng)
        if search.do_sample:
            next_B = jax.random.categorical(own, warped(scores_BV, search))
        else:
            next_B = scores_BV.argmax(axis=-1)
        ids_BS = ids_BS.at[:, i + 1].set(jnp.where(ended_B, 0, next_B).astype(jnp.int32))
        return ids_BS, ended_B | (next_B == eos), rng

    def goes_on(carried: Any) -> Array:
        i, (_, ended_B, _), _ = carried
        return (i < search.T) & ~ended_B.all()

    def step(carried: Any) -> Any:
        i, chosen, past = carried
        logits_BV, past = decoder.step(params, chosen[0][:, i], past, states_BLD, mask_BL)
        return i + 1, choose(i, logits_BV, *chosen), past

    chosen = choose(0, first_BV, empty_BS, jnp.zeros(B, bool), rng)
    found: Array = lax.while_loop(goes_on, step, (1, chosen, past))[1][0]
    return found[:, 1:]


@functools.partial(jax.jit, static_argnums=(0, 1))
def search_beams(decoder: Any, search: Search, params: Any, states_BLD: Array, mask_BL: Array) -> Beams:
    """Return all beams of transformers' search."""
    (first, past), config, T, M = decoder.start(params, states_BLD, mask_BL), decoder.config, search.T, search.num_beams
    (B, V), eos = first.shape, config.eos_token_id
    past = jax.tree.map(lambda x: x if x.ndim == 0 else jnp.repeat(x, M, axis=0), past)
    states, mask, rows_B1 = jnp.repeat(states_BLD, M, axis=0), jnp.repeat(mask_BL, M, axis=0), jnp.arange(B)[:, None]
    divisors_T = jnp.asarray(np.array([search.divisor(length) for length in range(1, T + 1)], np.float32))
    first_C = jnp.arange(2 * M) < M

    def choose(i: Any, logits: Array, beams: Any) -> Any:
        alive_BMS, sums_BM, done_BMS, scores_BM, full_BM, hope_B1, _ = beams
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        scores = without(log_p, alive_BMS.reshape(B * M, T + 1), i, search, eos).reshape(B, M, V)
        found_BC, at_BC = lax.top_k((scores + sums_BM[..., None]).reshape(B, -1), 2 * M)
        beams_BC = at_BC // V
        candidates = alive_BMS[rows_B1, beams_BC].at[:, :, i + 1].set(at_BC % V)
        stops_BC = (at_BC % V == eos) | (i + 1 == T)
        sums_BM, kept_BM = lax.top_k(found_BC + stops_BC * NEVER, M)
        rows = (rows_B1 * M + beams_BC[rows_B1, kept_BM]).reshape(-1)
        ends_BC, own_BC = stops_BC & first_C, found_BC / divisors_T[i]
        early = search.early_stopping is True
        for closed in (full_BM.all(axis=1, keepdims=True) & early, ~hope_B1, ~ends_BC):
            own_BC = own_BC + closed * NEVER
        scores_BM, best_BM = lax.top_k(jnp.concatenate((scores_BM, own_BC), axis=1), M)
        done_BMS = jnp.concatenate((done_BMS, candidates), axis=1)[rows_B1, best_BM]
        full_BM = jnp.concatenate((full_BM, ends_BC), axis=1)[rows_B1, best_BM]
        longest = search.early_stopping == "never" and search.length_penalty > 0
        worst_BM = jnp.where(full_BM, scores_BM.min(axis=1, keepdims=True), NEVER)
        hope_B1 &= (sums_BM[:, :1] / divisors_T[T - 1 if longest else i] > worst_BM).any(axis=1, keepdims=True)
        goes_on = hope_B1.any() & ~(early & full_BM.all()) & ~stops_BC.all()
        return rows, (candidates[rows_B1, kept_BM], sums_BM, done_BMS, scores_BM, full_BM, hope_B1, goes_on)

    def step(carried: Any) -> Any:
        i, past, beams = carried
        logits, past = decoder.step(params, beams[0][:, :, i].reshape(-1), past, states, mask)
        rows, beams = choose(i, logits, beams)
        return i + 1, tuple(layer.taken(rows) for layer in past), beams

    empty_BMS = jnp.zeros((B, M, T + 1), jnp.int32).at[..., 0].set(config.decoder_start_token_id)
    never_BM, none_BM = jnp.full((B, M), NEVER), jnp.zeros((B, M), bool)
    beams = (empty_BMS, never_BM.at[:, 0].set(0), empty_BMS, never_BM, none_BM, jnp.ones((B, 1), bool), True)
    rows, beams = choose(0, jnp.repeat(first, M, axis=0), beams)
    _, _, beams = lax.while_loop(
        lambda carried: carried[2][-1], step, (1, tuple(layer.taken(rows) for layer in past), beams)
    )
    return Beams(beams[2][..., 1:], beams[3])
