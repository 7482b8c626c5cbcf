"""Checks and completes what a model is called with.

Legend: B batch, L length, K keys (those of the encoder, or those a mask covers), M places of a cache, D hidden,
N heads, C choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from bigbird_port.families.configuration import Attending
from bigbird_port.sparse.packing import Packing, make_packing
from bigbird_port.sparse.pattern import pattern_blocks
from models_flax.bigbird.cache import LayerCache, cached_length

IGNORED = -100  # a label that does not count


class Inputs(NamedTuple):
    """What the encoder needs beside the embeddings.

    mask: bool [B, L] or [B, L, K]. token_type_ids [B, L], position_ids [B or 1, L]. head_mask: [layers, N] or None.
    encoder_states [B, K, D] and encoder_mask (bool, [B, K] or [B, L, K]): of cross-attention, or None. past: the
    caches, the new tokens in their masks already. packing: how to skip padded blocks; None where there are none, or the
    mask is not known before the code is compiled.
    """

    mask: Array
    token_type_ids: Array
    position_ids: Array
    head_mask: Array | None
    encoder_states: Array | None
    encoder_mask: Array | None
    past: tuple[LayerCache, ...] | None
    packing: Packing | None = None


@dataclass(frozen=True)
class Arrays:
    """The arrays of a call, as transformers names them and in its order; FlaxBigBirdModule says what each is."""

    input_ids: Array
    attention_mask: Array | None = None
    token_type_ids: Array | None = None
    position_ids: Array | None = None
    head_mask: Array | None = None
    encoder_hidden_states: Array | None = None
    encoder_attention_mask: Array | None = None
    past_key_values: tuple[LayerCache, ...] | None = None


def check_inputs(config: Attending, arrays: Arrays) -> tuple[int, int]:
    """Return batch and length; raise ValueError, naming the argument, for what does not fit configuration or others.

    Of traced arrays only shapes and types can be seen.
    """
    ids = arrays.input_ids
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"input_ids has shape {list(ids.shape)}, expected [batch, length] with neither 0")
    _check_ids("input_ids", ids, config.vocab_size)
    B, L = ids.shape
    if config.max_position_embeddings < L:
        raise ValueError(
            f"the inputs are {L} tokens long, but there are {config.max_position_embeddings} position "
            "embeddings (max_position_embeddings): shorten them"
        )
    places = _check_past(config, arrays.past_key_values, arrays.encoder_hidden_states, B, L)
    _check_mask(config, arrays.attention_mask, B, L, places)
    for name, size in (
        ("token_type_ids", config.type_vocab_size),
        ("position_ids", config.max_position_embeddings),
    ):
        given = getattr(arrays, name)
        if given is not None:
            if given.shape not in ((B, L), (1, L)):
                raise ValueError(f"{name} has shape {list(given.shape)}, expected that of input_ids, {[B, L]}")
            _check_ids(name, given, size)
    (layers, N), head_mask = (config.num_hidden_layers, config.num_attention_heads), arrays.head_mask
    if head_mask is not None and head_mask.shape not in ((N,), (layers, N)):
        raise ValueError(f"head_mask has shape {list(head_mask.shape)}, expected [{N}] or [{layers}, {N}]")
    _check_encoder(config, arrays.encoder_hidden_states, arrays.encoder_attention_mask, B, L)
    return B, L


def complete_inputs(config: Attending, arrays: Arrays) -> Inputs:
    """Check the arrays and add what was left out: no padding but pad_token_id, type 0, positions in order."""
    B, L = check_inputs(config, arrays)
    ids, given, past = arrays.input_ids, arrays.attention_mask, arrays.past_key_values
    start = cached_length(past)
    block_sparse = not config.is_decoder and pattern_blocks(config, L) is not None
    packing = _packing(config, ids, given) if block_sparse else None
    mask = ids != config.pad_token_id if given is None else given.astype(bool)
    if past is not None:
        mask, past = _with_cached(mask, past, B, L)
    token_type_ids, position_ids = arrays.token_type_ids, arrays.position_ids
    if token_type_ids is None:
        token_type_ids = jnp.zeros_like(ids)
    if position_ids is None:
        position_ids = (start + jnp.arange(L))[None]
    head_mask, states, encoder_mask = arrays.head_mask, arrays.encoder_hidden_states, arrays.encoder_attention_mask
    if head_mask is not None:
        head_mask = jnp.broadcast_to(head_mask, (config.num_hidden_layers, config.num_attention_heads))
    if states is not None and encoder_mask is None:
        encoder_mask = jnp.ones(states.shape[:2], bool)
    return Inputs(
        jnp.broadcast_to(mask, (B, *mask.shape[1:])),
        token_type_ids,
        position_ids,
        head_mask,
        states,
        None if encoder_mask is None else encoder_mask.astype(bool),
        past,
        packing,
    )


def _packing(config: Attending, input_ids: Array, attention_mask: Array | None) -> Packing | None:
    """How to skip padded blocks, if the mask's values are at hand: the one thing that is read of the device."""
    given = input_ids if attention_mask is None else attention_mask
    if isinstance(given, jax.core.Tracer) or not getattr(given, "is_fully_addressable", True):
        return None
    values = np.asarray(given)
    mask_BL = values != config.pad_token_id if attention_mask is None else values != 0
    return make_packing(np.broadcast_to(mask_BL, input_ids.shape), config.block_size)


def check_labels(name: str, labels: Array, shape: tuple[int, ...], size: int) -> None:
    """Raise ValueError unless labels have a shape and, if not traced, lie in 0 .. size - 1, or are -100."""
    if labels.shape not in (shape, (*shape, 1)):
        raise ValueError(f"{name} has shape {list(labels.shape)}, expected {list(shape)}")
    _check_ids(name, labels, size, IGNORED)


def check_class_labels(labels: Array, batch: int, num_labels: int, problem_type: str | None) -> None:
    """Raise ValueError unless labels are classes [B], or as many numbers as there are scores."""
    inferred = problem_type is None and num_labels > 1 and jnp.issubdtype(labels.dtype, jnp.integer)
    if problem_type == "single_label_classification" or inferred:
        check_labels("labels", labels, (batch,), num_labels)
    elif labels.shape not in ((batch, num_labels), (batch,) if num_labels == 1 else ()):
        raise ValueError(f"labels has shape {list(labels.shape)}, expected {[batch, num_labels]}: a number a score")


def check_positions(starts: Array, ends: Array, batch: int) -> None:
    """Raise ValueError unless start_positions and end_positions are integers [B] (or [B, 1])."""
    for name, positions in (("start_positions", starts), ("end_positions", ends)):
        if positions.shape not in ((batch,), (batch, 1)):
            raise ValueError(f"{name} has shape {list(positions.shape)}, expected {[batch]}")
        if not jnp.issubdtype(positions.dtype, jnp.integer):
            raise ValueError(f"{name} has dtype {positions.dtype}, expected integers")


def check_question_lengths(question_lengths: Array | None, batch: int) -> None:
    """Raise ValueError unless there is a length for every text."""
    if question_lengths is not None and question_lengths.shape not in ((batch,), (batch, 1)):
        raise ValueError(f"question_lengths has shape {list(question_lengths.shape)}, expected [{batch}]")


def check_choices(input_ids: Array) -> tuple[int, int]:
    """Return batch and number of choices; raise ValueError unless ids have three axes."""
    if input_ids.ndim != 3:
        raise ValueError(f"input_ids has shape {list(input_ids.shape)}, expected [batch, choices, length]")
    return input_ids.shape[0], input_ids.shape[1]


def flatten_choices(x_BCL: Any) -> Any:
    """Return [B, C, ...] as [B x C, ...]; None stays None."""
    return None if x_BCL is None else x_BCL.reshape(-1, *x_BCL.shape[2:])


def _with_cached(mask: Array, past: tuple[LayerCache, ...], B: int, L: int) -> tuple[Array, tuple[LayerCache, ...]]:
    """Which of a cache's M places each new token attends to, [B, L, M], and the caches with the new mask."""
    first = past[0]
    M = first.mask.shape[1]
    if mask.ndim == 3:  # it says alone who attends to whom; a later step without it counts these tokens as real
        seen_BM = lax.dynamic_update_slice_in_dim(first.mask, jnp.ones((B, L), bool), first.filled, axis=1)
        return mask, tuple(cache._replace(mask=seen_BM) for cache in past)
    mask_BM = jnp.broadcast_to(mask, (B, mask.shape[1]))
    if mask.shape[1] != M:
        mask_BM = lax.dynamic_update_slice_in_dim(first.mask, mask_BM, first.filled, axis=1)
    behind_LM = jnp.arange(M) <= (first.filled + jnp.arange(L))[:, None]
    return mask_BM[:, None] & behind_LM, tuple(cache._replace(mask=mask_BM) for cache in past)


def _check_ids(name: str, ids: ArrayLike, size: int, ignored: int | None = None) -> None:
    """Ids must be integers in 0 .. size - 1: a lookup would clamp others silently. A traced array has no values."""
    ids = jnp.asarray(ids)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"{name} has dtype {ids.dtype}, expected integers")
    if isinstance(ids, jax.core.Tracer):
        return
    values = np.asarray(ids)
    wrong = (values < 0) | (values >= size)
    if ignored is not None:
        wrong &= values != ignored
    if wrong.any():
        position = tuple(int(i) for i in np.argwhere(wrong)[0])
        also = "" if ignored is None else f", or {ignored}"
        raise ValueError(f"{name} at {list(position)} is {values[position]}, expected 0 .. {size - 1}{also}")


def _check_mask(config: Attending, mask: Array | None, B: int, L: int, places: int | None) -> None:
    """A mask covers the new tokens, or with a cache all of its places."""
    if mask is None:
        return
    if mask.ndim == 3 and not config.is_decoder and pattern_blocks(config, L) is not None:
        raise ValueError(
            f"attention_mask has shape {list(mask.shape)}, expected {[B, L]}: a mask of queries and keys works with "
            "full attention only (attention_type='original_full')"
        )
    lengths = (L,) if places is None else (L, places)
    if mask.ndim not in (2, 3) or mask.shape[0] not in (1, B) or mask.shape[-1] not in lengths:
        expected = " or ".join(str([B, length]) for length in lengths)
        raise ValueError(f"attention_mask has shape {list(mask.shape)}, expected {expected}, or {[B, L, lengths[-1]]}")
    if mask.ndim == 3 and mask.shape[1:] != (L, lengths[-1]):
        raise ValueError(f"attention_mask has shape {list(mask.shape)}, expected {[B, L, lengths[-1]]}")


def _check_past(
    config: Attending, past: tuple[LayerCache, ...] | None, encoder_hidden_states: Array | None, B: int, L: int
) -> int | None:
    """Return the number of places of a cache."""
    if past is None:
        return None
    if not config.is_decoder:
        raise ValueError("past_key_values was given, but this model is no decoder (is_decoder is False)")
    if len(past) != config.num_hidden_layers or not all(isinstance(layer, LayerCache) for layer in past):
        raise ValueError(
            f"past_key_values has {len(past)} entries, expected {config.num_hidden_layers} of LayerCache: pass on "
            "what the model returned, or init_cache's"
        )
    places = past[0].mask.shape[1]
    expected = (B, config.num_attention_heads, places, config.head_dim)
    for i, layer in enumerate(past):
        if layer.key.shape != expected or layer.value.shape != expected:
            raise ValueError(
                f"past_key_values: layer {i} has a key {list(layer.key.shape)} and a value {list(layer.value.shape)}, "
                f"expected {list(expected)}"
            )
    if past[0].cross_key is not None and encoder_hidden_states is None:
        raise ValueError(
            "past_key_values holds an encoder's keys, but encoder_hidden_states was not given: give it at every step"
        )
    held = cached_length(past)
    if not isinstance(held, jax.core.Tracer) and held + L > places:
        raise ValueError(
            f"past_key_values holds {held} tokens and has {places} places, too few for {L} more: give init_cache a "
            "larger max_length"
        )
    return places


def _check_encoder(config: Attending, states: Array | None, mask: Array | None, B: int, L: int) -> None:
    if states is None:
        if mask is not None:
            raise ValueError("encoder_attention_mask was given without encoder_hidden_states: give both or neither")
        return
    if not config.add_cross_attention:
        raise ValueError(
            "encoder_hidden_states was given, but the model has no cross-attention: set is_decoder and "
            "add_cross_attention in its configuration"
        )
    if states.ndim != 3 or states.shape[0] != B or states.shape[1] == 0 or states.shape[2] != config.hidden_size:
        raise ValueError(
            f"encoder_hidden_states has shape {list(states.shape)}, expected [{B}, length, {config.hidden_size}]"
        )
    K = states.shape[1]
    if mask is not None and mask.shape not in ((B, K), (B, L, K)):
        raise ValueError(f"encoder_attention_mask has shape {list(mask.shape)}, expected {[B, K]} or {[B, L, K]}")
