"""Writing summaries: ``generate``, and the original's searches. Each is one compiled program.

Legend: B batch, L length of the texts, T tokens that are written at most, M beams, V vocabulary.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.models.search import settle
from models_flax.pegasus.cache import DecoderCache, init_cache
from models_flax.pegasus.searches import Beams, search_beams, write

LOWEST = float(np.finfo(np.float32).min)  # the original's minus infinity
Past = tuple[DecoderCache, ...]


class GenerationMixin:
    """Generation for a model that summarises."""

    config: Any
    module: Any
    params: Any
    encode: Any

    def generate(
        self,
        input_ids: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        num_beams: int = 1,
        beam_style: str | None = None,
        alpha: float | None = None,
        eos_token_id: int | None = None,
        rng: Array | None = None,
        encoder_outputs: Any = None,
        return_beams: bool = False,
        params: dict[str, Any] | None = None,
        **asked: Any,
    ) -> Array | Beams:
        """Return the ids of summaries [B, T], without the start id, 0 where nothing was written.

        beam_style "original" takes the best token each time until every text has an end, or searches with
        ``num_beams``, always for T steps, with the length penalty ((5 + n) / 6) ** alpha (0.8). "transformers" is its
        generate, whose arguments are in ``asked``: length_penalty (1.0), early_stopping (False, True or "never"),
        no_repeat_ngram_size, min_length, and do_sample with temperature, top_k (50) and top_p, for which ``rng``, a
        key, draws. None is "transformers" where one of these is given. max_new_tokens, max_length: T; None is
        config.decoder_length. As in transformers its max_length and min_length count the start id. eos_token_id: the
        end; None is as configured. encoder_outputs: in place of input_ids. return_beams: return all Beams. params: as
        in the call. Raises ValueError naming what does not fit.
        """
        config = self.config if eos_token_id is None else self.config.replace(eos_token_id=eos_token_id)
        search = settle(config, num_beams, beam_style, max_length, max_new_tokens, alpha, asked)
        if search.do_sample and rng is None:
            raise ValueError("do_sample=True without rng: give a key, as jax.random.key(0)")
        params = self.params if params is None else params
        if encoder_outputs is None:
            encoder_outputs = self.encode(input_ids, attention_mask, params=params)
        states_BLD = encoder_outputs[0]
        mask_BL: Any = attention_mask
        if mask_BL is None and input_ids is not None:
            mask_BL = np.asarray(input_ids) != self.config.pad_token_id
        mask_BL = jnp.ones(states_BLD.shape[:2], bool) if mask_BL is None else jnp.asarray(mask_BL, bool)
        decoder = _Decoder(self.module, config, search.T)
        if num_beams == 1 and not return_beams:
            if search.style == "original":
                return greedy(decoder, params, states_BLD, mask_BL)
            return write(decoder, search, params, states_BLD, mask_BL, jax.random.key(0) if rng is None else rng)
        if search.style == "original":
            beams = beam_search(decoder, num_beams, search.alpha, params, states_BLD, mask_BL)
        else:
            beams = search_beams(decoder, search, params, states_BLD, mask_BL)
        return beams if return_beams else beams.ids[:, 0]


class _Decoder(NamedTuple):
    """What is known of a decoder before anything is compiled."""

    module: Any
    config: BigBirdPegasusConfig
    T: int

    def start(self, params: Any, states_BLD: Array, mask_BL: Array) -> tuple[Array, Past]:
        """Return logits [B, V] behind the start id, and the cache."""
        past = init_cache(self.config, len(states_BLD), self.T, states_BLD.dtype)
        first_B = jnp.full(len(states_BLD), self.config.decoder_start_token_id, jnp.int32)
        return self.step(params, first_B, past, states_BLD, mask_BL)

    def step(self, params: Any, ids_B: Array, past: Past, states: Array, mask: Array) -> tuple[Array, Past]:
        """Return logits [B, V] behind the next ids, and the cache."""
        output = self.module.apply({"params": params}, ids_B[:, None], states, mask, past=past, method="decode")
        return output.logits[:, 0], output.past_key_values


@functools.partial(jax.jit, static_argnums=0)
def greedy(decoder: Any, params: Any, states_BLD: Array, mask_BL: Array) -> Array:
    """Return ids [B, T]; a text that has ended goes on until all have, as in the original."""
    logits_BV, past = decoder.start(params, states_BLD, mask_BL)
    ids_BT = jnp.zeros((len(logits_BV), decoder.T), jnp.int32).at[:, 0].set(logits_BV.argmax(axis=-1))

    def goes_on(carried: Any) -> Array:
        i, ids_BT, _ = carried
        return (i < decoder.T) & ~(ids_BT == decoder.config.eos_token_id).any(axis=1).all()

    def step(carried: Any) -> Any:
        i, ids_BT, past = carried
        logits_BV, past = decoder.step(params, ids_BT[:, i - 1], past, states_BLD, mask_BL)
        return i + 1, ids_BT.at[:, i].set(logits_BV.argmax(axis=-1)), past

    found: Array = lax.while_loop(goes_on, step, (1, ids_BT, past))[1]
    return found


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def beam_search(decoder: Any, M: int, alpha: float, params: Any, states_BLD: Array, mask_BL: Array) -> Beams:
    """Return all beams of the original's search."""
    first, past = decoder.start(params, states_BLD, mask_BL)
    (B, V), T, eos = first.shape, decoder.T, decoder.config.eos_token_id
    past = jax.tree.map(lambda x: x if x.ndim == 0 else jnp.repeat(x, M, axis=0), past)
    states, mask, rows_B1 = jnp.repeat(states_BLD, M, axis=0), jnp.repeat(mask_BL, M, axis=0), jnp.arange(B)[:, None]

    def choose(i: Any, logits: Array, alive_BMT: Array, sums_BM: Array, done_BMT: Array, scores_BM: Array) -> Any:
        log_p_BMV = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(B, M, V)
        found_B2M, at_B2M = best((log_p_BMV + sums_BM[..., None]).reshape(B, -1), 2 * M)
        beams_B2M = at_B2M // V
        candidates = alive_BMT[rows_B1, beams_B2M].at[:, :, i].set(at_B2M % V)
        ended_B2M = (candidates == eos).any(axis=-1)
        sums_BM, kept_BM = best(found_B2M + jnp.where(ended_B2M, LOWEST, 0.0), M)
        rows = (rows_B1 * M + beams_B2M[rows_B1, kept_BM]).reshape(-1)
        own_B2M = found_B2M / ((5 + (i + 1)) / 6) ** alpha + jnp.where(ended_B2M, 0.0, LOWEST)
        scores_BM, finished_BM = best(jnp.concatenate((scores_BM, own_B2M), axis=1), M)
        done_BMT = jnp.concatenate((done_BMT, candidates), axis=1)[rows_B1, finished_BM]
        return rows, (candidates[rows_B1, kept_BM], sums_BM, done_BMT, scores_BM)

    def step(i: Any, carried: Any) -> Any:
        past, beams = carried
        logits, past = decoder.step(params, beams[0][:, :, i - 1].reshape(-1), past, states, mask)
        rows, beams = choose(i, logits, *beams)
        return tuple(layer.taken(rows) for layer in past), beams

    empty_BMT, lowest_BM = jnp.zeros((B, M, T), jnp.int32), jnp.full((B, M), LOWEST)
    rows, beams = choose(0, jnp.repeat(first, M, axis=0), empty_BMT, lowest_BM.at[:, 0].set(0), empty_BMT, lowest_BM)
    _, (alive_BMT, sums_BM, done_BMT, scores_BM) = lax.fori_loop(
        1, T, step, (tuple(layer.taken(rows) for layer in past), beams)
    )
    ended_BM = (done_BMT == eos).any(axis=-1)
    return Beams(jnp.where(ended_BM[..., None], done_BMT, alive_BMT), jnp.where(ended_BM, scores_BM, sums_BM))


def best(scores_BX: Array, count: int) -> tuple[Array, Array]:
    """Return the best scores, descending, and where they are; of equal ones the first come first."""
    values_BC, places_BC = lax.top_k(scores_BX, count)
    return values_BC, places_BC
