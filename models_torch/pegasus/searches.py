"""Writing summaries as transformers' generate does: greedily, by drawing, or by its beam search.

Legend: B batch, T tokens that are written at most, S tokens so far (the start id is the first), M beams, V vocabulary,
R rows (batch and beams), C candidates.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.models.search import Search

NEVER = -1e9  # transformers' score of what cannot be


class Beams(NamedTuple):
    """What a beam search returns, best first among the finished: ids [B, M, T] and scores [B, M].

    A summary that has no end has the plain sum of its log-probabilities as its score in the original's search.
    """

    ids: Tensor
    scores: Tensor


def without(scores_RV: Tensor, ids_RS: Tensor, search: Search, eos: int) -> Tensor:
    """Return scores without the tokens that would repeat an n-gram, and without an end that comes too early."""
    (R, V), S, n = scores_RV.shape, ids_RS.shape[1], search.no_repeat_ngram_size
    if 0 < n <= S:
        grams_RWn = ids_RS.unfold(1, n, 1)
        again_RW = (grams_RWn[..., :-1] == ids_RS[:, None, S - n + 1 :]).all(dim=-1)
        banned_RW = torch.where(again_RW, grams_RWn[..., -1], V)
        mask_RV = torch.zeros(R, V + 1, dtype=torch.bool, device=ids_RS.device).scatter(1, banned_RW, True)
        scores_RV = scores_RV.masked_fill(mask_RV[:, :V], -math.inf)
    if search.min_length > S:
        scores_RV = scores_RV.index_fill(1, torch.tensor([eos], device=scores_RV.device), -math.inf)
    return scores_RV


def warped(scores_RV: Tensor, search: Search) -> Tensor:
    """Return scores at a temperature, of the best tokens alone."""
    scores_RV = scores_RV / search.temperature
    if search.top_k:
        last_R1 = scores_RV.topk(min(search.top_k, scores_RV.shape[1])).values[:, -1:]
        scores_RV = scores_RV.masked_fill(scores_RV < last_R1, -math.inf)
    if search.top_p < 1:
        sorted_RV, places_RV = scores_RV.sort()
        out_RV = sorted_RV.softmax(dim=-1).cumsum(dim=-1) <= 1 - search.top_p
        out_RV[:, -1] = False
        scores_RV = scores_RV.masked_fill(torch.zeros_like(out_RV).scatter(1, places_RV, out_RV), -math.inf)
    return scores_RV


def write(decoder: Any, config: BigBirdPegasusConfig, search: Search, generator: torch.Generator | None) -> Tensor:
    """Return ids [B, T]: the best token each time, or one that is drawn; a text that has ended is followed by 0."""
    logits_BV, eos = decoder.start(config, search.T), config.eos_token_id
    B = len(logits_BV)
    ids_BS = torch.zeros(B, search.T + 1, dtype=torch.long, device=logits_BV.device)
    ids_BS[:, 0], ended_B = config.decoder_start_token_id, torch.zeros(B, dtype=torch.bool, device=logits_BV.device)
    for i in range(search.T):
        if i:
            logits_BV = decoder.step(ids_BS[:, i])
        scores_BV = without(logits_BV.float(), ids_BS[:, : i + 1], search, eos)
        if search.do_sample:
            next_B = torch.multinomial(warped(scores_BV, search).softmax(dim=-1), 1, generator=generator)[:, 0]
        else:
            next_B = scores_BV.argmax(dim=-1)
        ids_BS[:, i + 1] = next_B.masked_fill(ended_B, 0)
        ended_B = ended_B | (next_B == eos)
        if ended_B.all():
            break
    return ids_BS[:, 1:]


def search_beams(decoder: Any, config: BigBirdPegasusConfig, search: Search) -> Beams:
    """Return all beams of transformers' search."""
    logits, eos, T, M = decoder.start(config, search.T), config.eos_token_id, search.T, search.num_beams
    B, V = logits.shape
    decoder.repeat(M)
    logits = logits.repeat_interleave(M, 0)
    alive_BMS = torch.zeros(B, M, T + 1, dtype=torch.long, device=logits.device)
    alive_BMS[..., 0] = config.decoder_start_token_id
    sums_BM = torch.full((B, M), NEVER, device=logits.device)
    sums_BM[:, 0] = 0
    done_BMS, scores_BM = alive_BMS.clone(), torch.full_like(sums_BM, NEVER)
    full_BM = torch.zeros(B, M, dtype=torch.bool, device=logits.device)
    hope_B1, rows_B1 = torch.ones_like(full_BM[:, :1]), torch.arange(B, device=logits.device)[:, None]
    first_C = torch.arange(2 * M, device=logits.device) < M
    for i in range(T):
        if i:
            logits = decoder.step(alive_BMS[:, :, i].flatten())
        scores = without(logits.float().log_softmax(dim=-1), alive_BMS[..., : i + 1].flatten(0, 1), search, eos)
        found_BC, at_BC = (scores.view(B, M, V) + sums_BM[..., None]).flatten(1).topk(2 * M)
        beams_BC = at_BC // V
        candidates = alive_BMS[rows_B1, beams_BC]
        candidates[:, :, i + 1] = at_BC % V
        stops_BC = (at_BC % V == eos) | (i + 1 == T)
        running_BC = found_BC + stops_BC.float() * NEVER
        kept_BM = running_BC.topk(M).indices
        alive_BMS, sums_BM = candidates[rows_B1, kept_BM], running_BC.gather(1, kept_BM)
        decoder.take((rows_B1 * M + beams_BC.gather(1, kept_BM)).flatten())
        ends_BC, own_BC = stops_BC & first_C, found_BC / search.divisor(i + 1)
        for closed in (full_BM.all(dim=1, keepdim=True) & (search.early_stopping is True), ~hope_B1, ~ends_BC):
            own_BC = own_BC + closed.float() * NEVER
        scores_BM, kept_BM = torch.cat((scores_BM, own_BC), dim=1).topk(M)
        done_BMS = torch.cat((done_BMS, candidates), dim=1)[rows_B1, kept_BM]
        full_BM = torch.cat((full_BM, ends_BC), dim=1).gather(1, kept_BM)
        length = T if search.early_stopping == "never" and search.length_penalty > 0 else i + 1
        worst_BM = torch.where(full_BM, scores_BM.min(dim=1, keepdim=True).values, NEVER)
        hope_B1 = hope_B1 & (sums_BM[:, :1] / search.divisor(length) > worst_BM).any(dim=1, keepdim=True)
        if not hope_B1.any() or (search.early_stopping is True and full_BM.all()) or stops_BC.all():
            break
    return Beams(done_BMS[..., 1:], scores_BM)
