"""Checks and completes what the decoder is called with; the encoder's inputs are BigBird's.

Legend: B batch, T tokens of the decoder, K keys of the encoder, M places of a cache, D hidden, N heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_torch import host
from models_torch.bigbird.tracing import lengths
from models_torch.pegasus.cache import DecoderCache, cached_length


class DecoderInputs(NamedTuple):
    """What the decoder needs beside the embeddings.

    mask: bool [B, cached and new tokens]. positions [T]. encoder_states [B, K, D] and encoder_mask (bool [B, K]), or
    None. head_mask, cross_head_mask: [layers, N] or None. past: the cache to go on from, or None.
    """

    mask: Tensor
    positions: Tensor
    encoder_states: Tensor | None
    encoder_mask: Tensor | None
    head_mask: Tensor | None
    cross_head_mask: Tensor | None
    past: tuple[DecoderCache, ...] | None


@dataclass(frozen=True)
class DecoderArrays:
    """The decoder's arrays of a call; BigBirdPegasusModel says what each is."""

    ids: Tensor | None = None
    embeds: Tensor | None = None
    mask: Tensor | None = None
    encoder_states: Tensor | None = None
    encoder_mask: Tensor | None = None
    head_mask: Tensor | None = None
    cross_head_mask: Tensor | None = None
    past: tuple[DecoderCache, ...] | None = None


def decoder_inputs_of(config: BigBirdPegasusConfig, given: DecoderArrays, prefix: str = "decoder_") -> DecoderInputs:
    """Check the arrays and add what was left out; raises ValueError naming the argument, ``prefix`` before its name."""
    B, T = _check_tokens(config, given, prefix)
    past = _check_past(config, given.past, B, T)
    if past + T > config.max_position_embeddings:
        raise ValueError(
            f"{prefix}input_ids are {past + T} tokens long with those in the cache, but there are "
            f"{config.max_position_embeddings} position embeddings (max_position_embeddings): shorten them"
        )
    device = _first(given).device
    mask = torch.ones(B, past + T, dtype=torch.bool, device=device) if given.mask is None else given.mask.bool()
    if tuple(mask.shape) not in ((B, past + T), (1, past + T)):
        raise ValueError(f"{prefix}attention_mask has shape {list(mask.shape)}, expected {[B, past + T]}")
    states, encoder_mask = given.encoder_states, given.encoder_mask
    if states is not None:
        _check_encoder(config, states, encoder_mask, B)
        if encoder_mask is None:
            encoder_mask = torch.ones(states.shape[:2], dtype=torch.bool, device=device)
    heads = (
        _layers_of(config, f"{prefix}head_mask", given.head_mask),
        _layers_of(config, "cross_attn_head_mask", given.cross_head_mask),
    )
    positions = torch.arange(past, past + T, device=device)
    return DecoderInputs(
        mask.expand(B, -1), positions, states, None if encoder_mask is None else encoder_mask.bool(), *heads, given.past
    )


def _first(given: DecoderArrays) -> Tensor:
    tokens = given.ids if given.ids is not None else given.embeds
    assert tokens is not None
    return tokens


def _check_tokens(config: BigBirdPegasusConfig, given: DecoderArrays, prefix: str) -> tuple[int, int]:
    if (given.ids is None) == (given.embeds is None):
        found = "neither" if given.ids is None else "both"
        raise ValueError(f"{found} of {prefix}input_ids and {prefix}inputs_embeds was given: give exactly one of them")
    tokens = _first(given)
    wanted = 2 if given.ids is not None else 3
    name = f"{prefix}input_ids" if wanted == 2 else f"{prefix}inputs_embeds"
    if tokens.ndim != wanted or 0 in tokens.shape or (wanted == 3 and tokens.shape[2] != config.d_model):
        expected = "[batch, length]" if wanted == 2 else f"[batch, length, {config.d_model}]"
        raise ValueError(f"{name} has shape {list(tokens.shape)}, expected {expected} with none 0")
    if given.ids is not None:
        check_token_ids(name, given.ids, config.vocab_size)
    return lengths(tokens)


def check_token_ids(name: str, ids: Any, size: int) -> None:
    """Raise ValueError unless ids are integers in 0 .. size - 1; a traced array has no values to look at."""
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{name} has dtype {ids.dtype}, expected integers")
    extent = host.extent_beside(ids) if host.is_known(ids) else (0, 0)
    if extent is not None and extent[0] >= 0 and extent[1] < size:
        return
    wrong = (ids < 0) | (ids >= size)
    if wrong.any():
        position = wrong.nonzero()[0].tolist()
        raise ValueError(f"{name} at {position} is {int(ids[tuple(position)])}, expected 0 .. {size - 1}")


def _check_past(config: BigBirdPegasusConfig, past: Any, B: int, T: int) -> int:
    """Return the cached length."""
    if past is None:
        return 0
    if len(past) != config.decoder_layers or not all(isinstance(layer, DecoderCache) for layer in past):
        raise ValueError(
            f"past_key_values has {len(past)} entries, expected {config.decoder_layers} of DecoderCache: pass on what "
            "the model returned, or init_cache's"
        )
    places, filled = past[0].key.shape[2], cached_length(past)
    if past[0].key.shape[0] != B:
        raise ValueError(f"past_key_values is for {past[0].key.shape[0]} texts, found {B}")
    if filled + T > places:
        raise ValueError(
            f"past_key_values has {places} places, of which {filled} are taken, but {T} tokens come: make it with "
            f"init_cache(batch_size, {filled + T})"
        )
    return filled


def _check_encoder(config: BigBirdPegasusConfig, states: Tensor, mask: Tensor | None, B: int) -> None:
    if states.ndim != 3 or states.shape[0] != B or states.shape[1] == 0 or states.shape[2] != config.d_model:
        raise ValueError(
            f"the encoder's hidden states have shape {list(states.shape)}, expected [{B}, length, {config.d_model}]"
        )
    if mask is not None and tuple(mask.shape) != tuple(states.shape[:2]):
        raise ValueError(
            f"the encoder's attention_mask has shape {list(mask.shape)}, expected {list(states.shape[:2])}"
        )


def _layers_of(config: BigBirdPegasusConfig, name: str, head_mask: Tensor | None) -> Tensor | None:
    layers, N = config.decoder_layers, config.num_attention_heads
    if head_mask is None:
        return None
    if tuple(head_mask.shape) not in ((N,), (layers, N)):
        raise ValueError(f"{name} has shape {list(head_mask.shape)}, expected [{N}] or [{layers}, {N}]")
    return head_mask.expand(layers, -1)
