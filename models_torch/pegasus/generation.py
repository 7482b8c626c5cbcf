"""Writing summaries: ``generate``, and the original's searches.

Legend: B batch, L length of the texts, T tokens that are written at most, M beams, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.models.search import settle
from models_torch.few_rows import written_fast
from models_torch.pegasus.cache import DecoderCache, init_cache
from models_torch.pegasus.searches import Beams, search_beams, write
from models_torch.scores import word_scores

LOWEST = torch.finfo(torch.float32).min  # the original's minus infinity


class GenerationMixin:
    """Generation for a model that summarises."""

    config: BigBirdPegasusConfig
    model: Any

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        num_beams: int = 1,
        beam_style: str | None = None,
        alpha: float | None = None,
        eos_token_id: int | None = None,
        generator: torch.Generator | None = None,
        encoder_outputs: Any = None,
        return_beams: bool = False,
        **asked: Any,
    ) -> Tensor | Beams:
        """Return the ids of summaries [B, T], without the start id, 0 where nothing was written.

        beam_style "original" takes the best token each time until every text has an end, or searches with
        ``num_beams``, always for T steps, with the length penalty ((5 + n) / 6) ** alpha (0.8). "transformers" is its
        generate, whose arguments are in ``asked``: length_penalty (1.0), early_stopping (False, True or "never"),
        no_repeat_ngram_size, min_length, and do_sample with temperature, top_k (50) and top_p, for which
        ``generator`` draws. None is "transformers" where one of these is given. max_new_tokens, max_length: T; None is
        config.decoder_length. As in transformers its max_length and min_length count the start id. eos_token_id: the
        end; None is as configured. encoder_outputs: in place of input_ids. return_beams: return all Beams. Raises
        ValueError naming what does not fit.
        """
        config = self.config if eos_token_id is None else self.config.replace(eos_token_id=eos_token_id)
        search = settle(config, num_beams, beam_style, max_length, max_new_tokens, alpha, asked)
        if search.do_sample and generator is None:
            raise ValueError("do_sample=True without generator: give one, as torch.Generator().manual_seed(0)")
        if encoder_outputs is None:
            encoder_outputs = self.model.encoder(input_ids, attention_mask)
        states_BLD = encoder_outputs[0]
        decoder = _Decoder(self.model, states_BLD, self.model.encoder_mask(input_ids, attention_mask))
        with written_fast(self):  # type: ignore[arg-type]  # it is a module
            if num_beams == 1 and not return_beams:
                if search.style == "original":
                    return greedy(decoder, config, search.T)
                return write(decoder, config, search, generator)
            if search.style == "original":
                beams = beam_search(decoder, config, search.T, num_beams, search.alpha)
            else:
                beams = search_beams(decoder, config, search)
        return beams if return_beams else beams.ids[:, 0]


class _Decoder:
    """The decoder, and the states and cache that it goes on from."""

    def __init__(self, model: Any, states_BLD: Tensor, mask_BL: Tensor | None) -> None:
        self.model, self.states, self.mask = model, states_BLD, mask_BL
        self.past: tuple[DecoderCache, ...] | None = None

    def start(self, config: BigBirdPegasusConfig, T: int) -> Tensor:
        """Return logits [B, V] behind the start id."""
        self.past = init_cache(config, len(self.states), T, self.states.dtype, self.states.device)
        first_B = torch.full((len(self.states),), config.decoder_start_token_id, device=self.states.device)
        return self.step(first_B)

    def step(self, ids_B: Tensor) -> Tensor:
        """Return logits [B, V] behind the next ids."""
        output = self.model.decode(ids_B[:, None], self.states, self.mask, past=self.past, use_cache=True)
        self.past = output.past_key_values
        logits_BV: Tensor = word_scores(output.last_hidden_state[:, 0], self.model.shared.weight)
        return logits_BV

    def take(self, rows: Tensor) -> None:
        """Go on with these rows of the batch."""
        assert self.past is not None
        self.past = tuple(layer.taken(rows) for layer in self.past)

    def repeat(self, times: int) -> None:
        """Go on with every row several times."""
        assert self.past is not None
        self.states, mask = self.states.repeat_interleave(times, 0), self.mask
        self.mask = None if mask is None else mask.repeat_interleave(times, 0)
        self.past = tuple(
            layer._replace(
                **{name: x.repeat_interleave(times, 0) for name, x in layer._asdict().items() if name != "filled"}
            )
            for layer in self.past
        )


def greedy(decoder: Any, config: BigBirdPegasusConfig, T: int) -> Tensor:
    """Return ids [B, T]; a text that has ended goes on until all have, as in the original."""
    logits_BV = decoder.start(config, T)
    ids_BT = torch.zeros(len(logits_BV), T, dtype=torch.long, device=logits_BV.device)
    for i in range(T):
        if i:
            logits_BV = decoder.step(ids_BT[:, i - 1])
        ids_BT[:, i] = logits_BV.argmax(dim=-1)
        if (ids_BT == config.eos_token_id).any(dim=1).all():
            break
    return ids_BT


def beam_search(decoder: Any, config: BigBirdPegasusConfig, T: int, M: int, alpha: float) -> Beams:
    """Return all beams of the original's search."""
    logits = decoder.start(config, T)
    B, V = logits.shape
    decoder.repeat(M)
    logits = logits.repeat_interleave(M, 0)
    alive_BMT = torch.zeros(B, M, T, dtype=torch.long, device=logits.device)
    sums_BM = torch.full((B, M), LOWEST, device=logits.device)
    sums_BM[:, 0] = 0
    done_BMT, scores_BM = torch.zeros_like(alive_BMT), torch.full((B, M), LOWEST, device=logits.device)
    rows_B1 = torch.arange(B, device=logits.device)[:, None]
    for i in range(T):
        if i:
            logits = decoder.step(alive_BMT[:, :, i - 1].flatten())
        log_p_BMV = logits.float().log_softmax(dim=-1).view(B, M, V)
        found_B2M, at_B2M = best((log_p_BMV + sums_BM[..., None]).flatten(1), 2 * M)
        beams_B2M = at_B2M // V
        candidates = alive_BMT[rows_B1, beams_B2M]
        candidates[:, :, i] = at_B2M % V
        ended_B2M = (candidates == config.eos_token_id).any(dim=-1)
        sums_BM, kept_BM = best(found_B2M + torch.where(ended_B2M, LOWEST, 0.0), M)
        alive_BMT = candidates[rows_B1, kept_BM]
        decoder.take((rows_B1 * M + beams_B2M[rows_B1, kept_BM]).flatten())
        own_B2M = found_B2M / ((5 + (i + 1)) / 6) ** alpha + torch.where(ended_B2M, 0.0, LOWEST)
        scores_BM, kept_BM = best(torch.cat((scores_BM, own_B2M), dim=1), M)
        done_BMT = torch.cat((done_BMT, candidates), dim=1)[rows_B1, kept_BM]
    ended_BM = (done_BMT == config.eos_token_id).any(dim=-1)
    return Beams(torch.where(ended_BM[..., None], done_BMT, alive_BMT), torch.where(ended_BM, scores_BM, sums_BM))


def best(scores_BX: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the best scores, descending, and where they are; of equal ones the first come first."""
    values_BC, _ = scores_BX.topk(min(count, scores_BX.shape[1]), dim=1)
    last_B1 = values_BC[:, -1:]
    if ((scores_BX == last_B1).sum(dim=1) > (values_BC == last_B1).sum(dim=1)).any() or scores_BX.shape[1] <= 1024:
        sorted_BX, order_BX = scores_BX.sort(dim=1, descending=True, stable=True)
        return sorted_BX[:, :count], order_BX[:, :count]
    places_BC = (scores_BX >= last_B1).nonzero()[:, 1].view(len(scores_BX), -1)  # ascending
    order_BC = scores_BX.gather(1, places_BC).sort(dim=1, descending=True, stable=True).indices
    places_BC = places_BC.gather(1, order_BC)
    return scores_BX.gather(1, places_BC), places_BC
