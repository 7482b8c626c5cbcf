"""Checks and completes what the decoder is called with; the encoder's inputs are BigBird's.

Legend: B batch, T tokens of the decoder, K keys of the encoder, M places of a cache, D hidden, N heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_flax.pegasus.cache import DecoderCache, cached_length


class DecoderInputs(NamedTuple):
    """What the decoder needs beside the embeddings.

    mask: bool [B, T], with a cache [B, T, M]. positions [T]. encoder_states [B, K, D] and encoder_mask (bool [B, K]),
    or None. head_mask, cross_head_mask: [layers, N] or None. past: the cache to go on from, or None.
    """

    mask: Array
    positions: Array
    encoder_states: Array | None
    encoder_mask: Array | None
    head_mask: Array | None
    cross_head_mask: Array | None
    past: tuple[DecoderCache, ...] | None


@dataclass(frozen=True)
class DecoderArrays:
    """The decoder's arrays of a call; FlaxBigBirdPegasusModule says what each is."""

    ids: Array | None = None
    embeds: Array | None = None
    mask: Array | None = None
    encoder_states: Array | None = None
    encoder_mask: Array | None = None
    head_mask: Array | None = None
    cross_head_mask: Array | None = None
    past: tuple[DecoderCache, ...] | None = None

    def tokens(self, config: BigBirdPegasusConfig, prefix: str = "") -> Any:
        """Return ids [B, T]; in place of word embeddings [B, T, D] some of which none is padding.

        Raises ValueError unless exactly one was given, and for embeddings of another shape.
        """
        ids, embeds = self.ids, self.embeds
        if (ids is None) == (embeds is None):
            found = "neither" if ids is None else "both"
            raise ValueError(
                f"{found} of {prefix}input_ids and {prefix}inputs_embeds was given: give exactly one of them"
            )
        if embeds is None:
            return ids
        if embeds.ndim != 3 or 0 in embeds.shape or embeds.shape[2] != config.d_model:
            raise ValueError(
                f"{prefix}inputs_embeds has shape {list(embeds.shape)}, expected [batch, length, {config.d_model}] "
                "with none 0"
            )
        return np.full(embeds.shape[:2], (config.pad_token_id + 1) % config.vocab_size, np.int32)


def decoder_inputs_of(config: BigBirdPegasusConfig, given: DecoderArrays, prefix: str = "decoder_") -> DecoderInputs:
    """Check the arrays and add what was left out; raises ValueError naming the argument, ``prefix`` before its name."""
    ids = given.tokens(config, prefix)
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"{prefix}input_ids has shape {list(ids.shape)}, expected [batch, length] with neither 0")
    check_token_ids(f"{prefix}input_ids", ids, config.vocab_size)
    B, T = ids.shape
    if config.max_position_embeddings < T:
        raise ValueError(
            f"{prefix}input_ids are {T} tokens long, but there are {config.max_position_embeddings} position "
            "embeddings (max_position_embeddings): shorten them"
        )
    places = _check_past(config, given.past, B, T)
    mask = jnp.ones((B, places), bool) if given.mask is None else given.mask.astype(bool)
    if mask.shape not in ((B, places), (1, places)):
        raise ValueError(f"{prefix}attention_mask has shape {list(mask.shape)}, expected {[B, places]}")
    mask, start = jnp.broadcast_to(mask, (B, places)), cached_length(given.past)
    positions = start + jnp.arange(T)
    if given.past is not None:
        mask = mask[:, None] & (jnp.arange(places) <= positions[:, None])
    states, encoder_mask = given.encoder_states, given.encoder_mask
    if states is not None:
        _check_encoder(config, states, encoder_mask, B)
        if encoder_mask is None:
            encoder_mask = jnp.ones(states.shape[:2], bool)
    heads = (
        _layers_of(config, f"{prefix}head_mask", given.head_mask),
        _layers_of(config, "cross_attn_head_mask", given.cross_head_mask),
    )
    encoder_mask = None if encoder_mask is None else encoder_mask.astype(bool)
    return DecoderInputs(mask, positions, states, encoder_mask, *heads, given.past)


def check_token_ids(name: str, ids: Any, size: int) -> None:
    """Raise ValueError unless ids are integers in 0 .. size - 1; a traced array has no values to look at."""
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"{name} has dtype {ids.dtype}, expected integers")
    if isinstance(ids, jax.core.Tracer) or not getattr(ids, "is_fully_addressable", True):
        return
    values = np.asarray(ids)
    wrong = np.argwhere((values < 0) | (values >= size))
    if len(wrong):
        position = wrong[0].tolist()
        raise ValueError(f"{name} at {position} is {values[tuple(position)]}, expected 0 .. {size - 1}")


def _check_past(config: BigBirdPegasusConfig, past: Any, B: int, T: int) -> int:
    """Return the number of places for keys: the new tokens', or those of the cache."""
    if past is None:
        return T
    if len(past) != config.decoder_layers or not all(isinstance(layer, DecoderCache) for layer in past):
        raise ValueError(
            f"past_key_values has {len(past)} entries, expected {config.decoder_layers} of DecoderCache: pass on what "
            "the model returned, or init_cache's"
        )
    places, filled = past[0].key.shape[2], past[0].filled
    if past[0].key.shape[0] != B:
        raise ValueError(f"past_key_values is for {past[0].key.shape[0]} texts, found {B}")
    known = 0 if isinstance(filled, jax.core.Tracer) else int(filled)
    if known + T > places:
        raise ValueError(
            f"past_key_values has {places} places, of which {known} are taken, but {T} tokens come: make it with "
            f"init_cache(batch_size, {known + T})"
        )
    return places


def _check_encoder(config: BigBirdPegasusConfig, states: Array, mask: Array | None, B: int) -> None:
    if states.ndim != 3 or states.shape[0] != B or states.shape[1] == 0 or states.shape[2] != config.d_model:
        raise ValueError(
            f"the encoder's hidden states have shape {list(states.shape)}, expected [{B}, length, {config.d_model}]"
        )
    if mask is not None and mask.shape != states.shape[:2]:
        raise ValueError(
            f"the encoder's attention_mask has shape {list(mask.shape)}, expected {list(states.shape[:2])}"
        )


def _layers_of(config: BigBirdPegasusConfig, name: str, head_mask: Array | None) -> Array | None:
    layers, N = config.decoder_layers, config.num_attention_heads
    if head_mask is None:
        return None
    if head_mask.shape not in ((N,), (layers, N)):
        raise ValueError(f"{name} has shape {list(head_mask.shape)}, expected [{N}] or [{layers}, {N}]")
    return jnp.broadcast_to(head_mask, (layers, N))
