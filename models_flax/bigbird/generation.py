"""Writing text token by token, with a cache of keys and values.

Legend: B batch, L length so far, M places of the cache, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import ArrayLike

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_flax.bigbird.cache import LayerCache, init_cache

Past = tuple[LayerCache, ...]


def filter_logits(logits_BV: Array, top_k: int | None = None, top_p: float | None = None) -> Array:
    """Return logits with -inf for all but the top_k best and, of these, the fewest that hold top_p of the probability.

    None switches a filter off. At least one token is left. Raises ValueError for top_k < 1 or top_p outside (0, 1].
    """
    if top_k is not None:
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1, or None")
        worst_B1 = jax.lax.top_k(logits_BV, min(top_k, logits_BV.shape[-1]))[0][..., -1:]
        logits_BV = jnp.where(logits_BV < worst_B1, -jnp.inf, logits_BV)
    if top_p is not None:
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}, expected above 0 and at most 1, or None")
        order_BV = jnp.argsort(logits_BV, axis=-1, descending=True)
        probabilities_BV = jax.nn.softmax(jnp.take_along_axis(logits_BV, order_BV, axis=-1), axis=-1)
        before_BV = probabilities_BV.cumsum(axis=-1) - probabilities_BV  # what better tokens hold already
        drop_BV = jnp.put_along_axis(
            jnp.zeros(logits_BV.shape, bool), order_BV, before_BV >= top_p, axis=-1, inplace=False
        )
        logits_BV = jnp.where(drop_BV, -jnp.inf, logits_BV)
    return logits_BV


class GenerationMixin:
    """Generation for a causal language model."""

    config: BigBirdConfig
    module: nn.Module
    params: dict[str, Any]

    def generate(
        self,
        input_ids: ArrayLike,
        max_new_tokens: int = 20,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        attention_mask: ArrayLike | None = None,
        encoder_hidden_states: ArrayLike | None = None,
        encoder_attention_mask: ArrayLike | None = None,
        params: dict[str, Any] | None = None,
    ) -> Array:
        """Continue ids [B, L] by at most max_new_tokens; returns prompt and continuation, [B, <= L + max_new_tokens].

        Takes the best token, or (do_sample) draws one with ``seed`` from what temperature, top_k and top_p leave.
        A text ends with eos_token_id, or any of several, and goes on with pad_token_id (None: the configuration's; -1
        never ends).
        attention_mask [B, L]: prompts may be padded on either side; positions count real tokens only. encoder_...,
        params: as in the model's call. Raises ValueError naming the argument that does not fit.
        """
        _check_generation(self.config, input_ids, max_new_tokens, temperature)
        ends = self.config.eos_token_id if eos_token_id is None else eos_token_id
        eos = jnp.asarray(ends)
        pad = self.config.pad_token_id if pad_token_id is None else pad_token_id
        ids_BL = jnp.asarray(input_ids)
        mask_BL = ids_BL != self.config.pad_token_id if attention_mask is None else jnp.asarray(attention_mask, bool)
        encoder = tuple(None if x is None else jnp.asarray(x) for x in (encoder_hidden_states, encoder_attention_mask))
        past = init_cache(self.config, ids_BL.shape[0], ids_BL.shape[1] + max_new_tokens)
        key = jax.random.key(seed) if do_sample else None
        new_BL, position_BL = ids_BL, (mask_BL.cumsum(axis=1) - 1).clip(0)
        finished_B = jnp.zeros(len(ids_BL), bool)
        params = self.params if params is None else params
        for i in range(max_new_tokens):
            step_key = None if key is None else jax.random.fold_in(key, i)
            next_B, past = _step(
                self.module, params, new_BL, mask_BL, position_BL, past, encoder, step_key, temperature, top_k, top_p
            )
            next_B = jnp.where(finished_B, pad, next_B).astype(ids_BL.dtype)
            finished_B = finished_B | jnp.isin(next_B, eos)
            ids_BL = jnp.concatenate((ids_BL, next_B[:, None]), axis=1)
            new_BL, mask_BL = next_B[:, None], jnp.ones((len(next_B), 1), bool)
            position_BL = position_BL.max(axis=1, keepdims=True) + 1
            if finished_B.all():
                break
        return ids_BL


@functools.partial(jax.jit, static_argnames=("module", "top_k", "top_p"))
def _step(
    module: nn.Module,
    params: dict[str, Any],
    new_BL: Array,
    mask_BL: Array,
    position_BL: Array,
    past: Past,
    encoder: tuple[Array | None, Array | None],
    key: Array | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> tuple[Array, Past]:
    """The next token of each text, [B], and the cache with the new ones in it; without ``key`` the best token."""
    states, encoder_mask = encoder
    output: Any = module.apply(
        {"params": params},
        new_BL,
        mask_BL,
        position_ids=position_BL,
        past_key_values=past,
        encoder_hidden_states=states,
        encoder_attention_mask=encoder_mask,
    )
    # the last real token: the one with the highest position, the first of its kind if padding repeats it
    last_B = position_BL.argmax(axis=1)
    logits_BV = jnp.take_along_axis(output.logits, last_B[:, None, None], axis=1)[:, 0]
    if key is None:
        return logits_BV.argmax(axis=-1), output.past_key_values
    filtered_BV = filter_logits(logits_BV.astype(jnp.float32) / temperature, top_k, top_p)
    return jax.random.categorical(key, filtered_BV), output.past_key_values


def _check_generation(config: BigBirdConfig, input_ids: ArrayLike, max_new_tokens: int, temperature: float) -> None:
    shape = np.shape(input_ids)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"input_ids has shape {list(shape)}, expected [batch, length] with neither 0")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected above 0; do_sample=False takes the best token")
    room = config.max_position_embeddings - shape[1]
    if max_new_tokens > room:
        raise ValueError(
            f"max_new_tokens is {max_new_tokens}, but after a prompt of {shape[1]} tokens there are position "
            f"embeddings for {room} more (max_position_embeddings is {config.max_position_embeddings})"
        )
