"""Checks and completes what a model is called with.

Legend: B batch, L length, K keys (cached tokens and the L new ones), D hidden, N heads, C choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bigbird_port.families.configuration import Attending
from bigbird_port.sparse.packing import Packing, make_packing, packing_of
from bigbird_port.sparse.pattern import pattern_blocks
from models_torch import host
from models_torch.bigbird.cache import LayerCache, cached_length
from models_torch.bigbird.losses import IGNORED
from models_torch.bigbird.tracing import lengths


class Inputs(NamedTuple):
    """What the encoder needs beside the embeddings.

    mask: bool [B, K] or [B, L, K]. token_type_ids [B, L], position_ids [B or 1, L]. head_mask: [layers, N] or None.
    encoder_states [B, K, D] and encoder_mask (bool, [B, K] or [B, L, K]): of cross-attention, or None.
    past: the cache to go on from, or None. packing: how to skip padded blocks; None where there are none, or attention
    is full, or the mask's values are not at hand.
    """

    mask: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    head_mask: Tensor | None
    encoder_states: Tensor | None
    encoder_mask: Tensor | None
    past: tuple[LayerCache, ...] | None
    packing: Packing | None = None


@dataclass(frozen=True)
class Arrays:
    """The arrays of a call, as transformers names them and in its order; BigBirdModel says what each is."""

    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    position_ids: Tensor | None = None
    head_mask: Tensor | None = None
    inputs_embeds: Tensor | None = None
    encoder_hidden_states: Tensor | None = None
    encoder_attention_mask: Tensor | None = None
    past_key_values: tuple[LayerCache, ...] | None = None


def check_inputs(config: Attending, arrays: Arrays) -> tuple[int, int]:
    """Return batch and length; raise ValueError, naming the argument, for what does not fit configuration or others."""
    B, L = _check_tokens(config, arrays.input_ids, arrays.inputs_embeds)
    past = _check_past(config, arrays.past_key_values, arrays.encoder_hidden_states, B)
    if past + L > config.max_position_embeddings:
        raise ValueError(
            f"the inputs are {past + L} tokens long, but there are {config.max_position_embeddings} position "
            "embeddings (max_position_embeddings): shorten them"
        )
    _check_mask(config, arrays.attention_mask, B, L, past + L)
    for name in ("token_type_ids", "position_ids"):
        ids = getattr(arrays, name)
        if ids is not None:
            if tuple(ids.shape) not in ((B, L), (1, L)):
                raise ValueError(f"{name} has shape {list(ids.shape)}, expected that of input_ids, {[B, L]}")
            _check_near_ids(name, ids, _sizes(config)[name])
    (layers, N), head_mask = (config.num_hidden_layers, config.num_attention_heads), arrays.head_mask
    if head_mask is not None and tuple(head_mask.shape) not in ((N,), (layers, N)):
        raise ValueError(f"head_mask has shape {list(head_mask.shape)}, expected [{N}] or [{layers}, {N}]")
    _check_encoder(config, arrays.encoder_hidden_states, arrays.encoder_attention_mask, B, L)
    return B, L


def complete_inputs(config: Attending, arrays: Arrays) -> Inputs:
    """Check the arrays and add what was left out: no padding but pad_token_id, type 0, positions in order."""
    B, L = check_inputs(config, arrays)
    past, tokens = cached_length(arrays.past_key_values), arrays.input_ids
    device = _first(tokens, arrays.inputs_embeds).device
    if arrays.attention_mask is not None:
        mask = arrays.attention_mask.bool()
    else:
        real = torch.ones(B, L, dtype=torch.bool, device=device) if tokens is None else tokens != config.pad_token_id
        mask = torch.cat((real.new_ones(B, past), real), dim=1) if past else real
    token_type_ids, position_ids = arrays.token_type_ids, arrays.position_ids
    if token_type_ids is None:
        token_type_ids = torch.zeros(B, L, dtype=torch.long, device=device)
    if position_ids is None:
        position_ids = torch.arange(past, past + L, device=device)[None]
    states, encoder_mask = arrays.encoder_hidden_states, arrays.encoder_attention_mask
    if states is not None and encoder_mask is None:
        encoder_mask = torch.ones(states.shape[:2], dtype=torch.bool, device=device)
    mask = mask.expand(B, *mask.shape[1:])
    look = _look(config, arrays, mask) if host.is_far(mask) else None
    return Inputs(
        mask,
        token_type_ids,
        position_ids,
        None if arrays.head_mask is None else arrays.head_mask.expand(config.num_hidden_layers, -1),
        states,
        None if encoder_mask is None else encoder_mask.bool(),
        arrays.past_key_values,
        _packing(config, mask, look),
    )


def _first(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """The one of them that check_inputs found."""
    tokens = input_ids if input_ids is not None else inputs_embeds
    assert tokens is not None
    return tokens


def _look(config: Attending, arrays: Arrays, mask: Tensor) -> host.Look:
    """Read at once what the host must know of a device's tensors, and check the ids by it."""
    sizes = _sizes(config)
    given = {name: getattr(arrays, name) for name in sizes if getattr(arrays, name) is not None}
    look = host.look(list(given.values()), mask)
    for (name, ids), extent in zip(given.items(), look.extents, strict=True):
        _check_extent(name, ids, sizes[name], extent)
    return look


def _packing(config: Attending, mask: Tensor, look: host.Look | None) -> Packing | None:
    """How to skip padded blocks, where attention is by blocks and the mask's values can be looked at."""
    if mask.ndim != 2 or config.is_decoder or pattern_blocks(config, lengths(mask)[1]) is None:
        return None
    if look is not None and look.ends is not None:
        return packing_of(look.ends, mask.shape[1], config.block_size)
    return make_packing(mask.cpu().numpy(), config.block_size) if host.is_known(mask) else None


def check_labels(name: str, labels: Tensor | None, shape: tuple[int, ...], size: int) -> None:
    """Raise ValueError unless labels (None passes) have a shape and lie in 0 .. size - 1, or are -100."""
    if labels is None:
        return
    if tuple(labels.shape) not in (shape, (*shape, 1)):
        raise ValueError(f"{name} has shape {list(labels.shape)}, expected {list(shape)}")
    _check_ids(name, labels, size, IGNORED)


def check_class_labels(labels: Tensor | None, batch: int, num_labels: int, problem_type: str | None) -> None:
    """Raise ValueError unless labels (None passes) are classes [B], or as many numbers as there are scores."""
    if labels is None:
        return
    inferred = problem_type is None and num_labels > 1 and not labels.is_floating_point()
    if problem_type == "single_label_classification" or inferred:
        check_labels("labels", labels, (batch,), num_labels)
    elif tuple(labels.shape) not in ((batch, num_labels), (batch,) if num_labels == 1 else ()):
        raise ValueError(f"labels has shape {list(labels.shape)}, expected {[batch, num_labels]}: a number a score")


def check_positions(starts: Tensor | None, ends: Tensor | None, batch: int) -> None:
    """Raise ValueError unless start_positions and end_positions are both absent or both integers [B] (or [B, 1])."""
    if (starts is None) != (ends is None):
        given = "end_positions" if starts is None else "start_positions"
        raise ValueError(f"only {given} was given: give both start_positions and end_positions, or neither")
    for name, positions in (("start_positions", starts), ("end_positions", ends)):
        if positions is not None:
            if tuple(positions.shape) not in ((batch,), (batch, 1)):
                raise ValueError(f"{name} has shape {list(positions.shape)}, expected {[batch]}")
            _check_integers(name, positions)


def check_question_lengths(question_lengths: Tensor, batch: int) -> None:
    """Raise ValueError unless question_lengths are integers [B] or [B, 1]."""
    if tuple(question_lengths.shape) not in ((batch,), (batch, 1)):
        raise ValueError(f"question_lengths has shape {list(question_lengths.shape)}, expected {[batch]}")
    _check_integers("question_lengths", question_lengths)


def check_choices(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> tuple[int, int]:
    """Return batch and number of choices; raise ValueError unless ids have three axes, or embeddings four."""
    if input_ids is not None and input_ids.ndim != 3:
        raise ValueError(f"input_ids has shape {list(input_ids.shape)}, expected [batch, choices, length]")
    if inputs_embeds is not None and inputs_embeds.ndim != 4:
        raise ValueError(
            f"inputs_embeds has shape {list(inputs_embeds.shape)}, expected [batch, choices, length, hidden]"
        )
    tokens = input_ids if input_ids is not None else inputs_embeds
    if tokens is None:
        raise ValueError("neither of input_ids and inputs_embeds was given: give exactly one of them")
    return tokens.shape[0], tokens.shape[1]


def flatten_choices(x_BCL: Tensor | None) -> Tensor | None:
    """Return [B, C, ...] as [B x C, ...]; None stays None."""
    return None if x_BCL is None else x_BCL.flatten(0, 1)


def _check_tokens(config: Attending, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> tuple[int, int]:
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither" if input_ids is None else "both"
        raise ValueError(f"{given} of input_ids and inputs_embeds was given: give exactly one of them")
    if input_ids is not None:
        if input_ids.ndim != 2 or 0 in input_ids.shape:
            raise ValueError(f"input_ids has shape {list(input_ids.shape)}, expected [batch, length] with neither 0")
        _check_near_ids("input_ids", input_ids, config.vocab_size)
        return lengths(input_ids)
    assert inputs_embeds is not None
    shape = inputs_embeds.shape
    if len(shape) != 3 or 0 in shape or shape[2] != config.hidden_size:
        raise ValueError(
            f"inputs_embeds has shape {list(shape)}, expected [batch, length, {config.hidden_size}] with none 0"
        )
    return lengths(inputs_embeds)


def _sizes(config: Attending) -> dict[str, int]:
    """How many rows the table has that each array of ids looks up."""
    tables = (config.vocab_size, config.type_vocab_size, config.max_position_embeddings)
    return dict(zip(("input_ids", "token_type_ids", "position_ids"), tables, strict=True))


def _check_near_ids(name: str, ids: Tensor, size: int) -> None:
    """The same as _check_ids, but a device's values wait until all that is wanted of it is read at once (_look)."""
    if host.is_far(ids):
        _check_integers(name, ids)
    else:
        _check_ids(name, ids, size)


def _check_ids(name: str, ids: Tensor, size: int, ignored: int | None = None) -> None:
    """Ids must be integers in 0 .. size - 1. A traced tensor has no values to look at."""
    _check_integers(name, ids)
    if host.is_known(ids):
        _check_extent(name, ids, size, host.extent_beside(ids), ignored)


def _check_extent(
    name: str, ids: Tensor, size: int, extent: tuple[int, int] | None, ignored: int | None = None
) -> None:
    """Ids must be in 0 .. size - 1; if their extent says so already, they are not looked at."""
    if extent is not None and extent[0] >= 0 and extent[1] < size:
        return
    wrong = (ids < 0) | (ids >= size)
    if ignored is not None:
        wrong &= ids != ignored
    if wrong.any():
        position = wrong.nonzero()[0].tolist()
        also = "" if ignored is None else f", or {ignored}"
        raise ValueError(f"{name} at {position} is {int(ids[tuple(position)])}, expected 0 .. {size - 1}{also}")


def _check_integers(name: str, ids: Tensor) -> None:
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} has dtype {ids.dtype}, expected integers")


def _check_mask(config: Attending, mask: Tensor | None, B: int, L: int, K: int) -> None:
    if mask is None:
        return
    if mask.ndim == 3 and pattern_blocks(config, L) is not None:
        raise ValueError(
            f"attention_mask has shape {list(mask.shape)}, expected {[B, K]}: a mask of queries and keys works with "
            "full attention only (attention_type='original_full')"
        )
    if tuple(mask.shape) not in ((B, K), (1, K), (B, L, K), (1, L, K)):
        raise ValueError(
            f"attention_mask has shape {list(mask.shape)}, expected {[B, K]} (cached and new tokens) or {[B, L, K]}"
        )


def _check_past(
    config: Attending, past: tuple[LayerCache, ...] | None, encoder_hidden_states: Tensor | None, B: int
) -> int:
    """Return the cached length."""
    if past is None:
        return 0
    if not config.is_decoder:
        raise ValueError("past_key_values was given, but this model is no decoder (is_decoder is False)")
    if len(past) != config.num_hidden_layers or not all(isinstance(layer, LayerCache) for layer in past):
        raise ValueError(
            f"past_key_values has {len(past)} entries, expected {config.num_hidden_layers} of LayerCache: pass on "
            "what the model returned, or init_cache's"
        )
    if past[0].cross_key is not None and encoder_hidden_states is None:
        raise ValueError(
            "past_key_values holds an encoder's keys, but encoder_hidden_states was not given: give it at every step"
        )
    expected = (B, config.num_attention_heads, cached_length(past), config.head_dim)
    for i, layer in enumerate(past):
        if tuple(layer.key.shape) != expected or tuple(layer.value.shape) != expected:
            raise ValueError(
                f"past_key_values: layer {i} has a key {list(layer.key.shape)} and a value {list(layer.value.shape)}, "
                f"expected {list(expected)}"
            )
    return cached_length(past)


def _check_encoder(config: Attending, states: Tensor | None, mask: Tensor | None, B: int, L: int) -> None:
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
    if mask is not None and tuple(mask.shape) not in ((B, K), (B, L, K)):
        raise ValueError(f"encoder_attention_mask has shape {list(mask.shape)}, expected {[B, K]} or {[B, L, K]}")
