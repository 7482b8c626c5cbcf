"""Inputs to run both frameworks on: seeded, long, padded and of mixed length, or read from a file.

Legend: B batch, L length.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.files.reading import check_regular, read_text

Inputs = dict[str, np.ndarray]
QUESTION_LENGTHS = "question_lengths"
DECODER_IDS = "decoder_input_ids"  # what a decoder reads beside the text
NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids", QUESTION_LENGTHS, DECODER_IDS)
DEFAULT_LENGTH = 1024
DEFAULT_BATCH = 2
# inputs whose axes are not those of the texts -> the shapes that they may have
_OTHERWISE: dict[str, Callable[[int, np.ndarray], tuple[tuple[int, ...], ...]]] = {
    QUESTION_LENGTHS: lambda B, x: ((B,), (B, 1)),
    DECODER_IDS: lambda B, x: ((B, x.shape[-1] if x.size else 1),),
}
_WRITTEN = 32  # tokens that a decoder reads, at most
DERIVED = ("question", "choices")  # inputs that heads change
BESIDE = "summaries"  # inputs of heads whose decoder reads something beside the text


def default_length(config: BigBirdConfig) -> int:
    """The length whose pattern the model uses, else a long one that its position embeddings allow."""
    return config.max_encoder_length or min(DEFAULT_LENGTH, config.max_position_embeddings)


def make_inputs(config: BigBirdConfig, batch: int, length: int, seed: int) -> Inputs:
    """Return input_ids [B, L] of texts of mixed length, with what the family takes beside them, int32.

    The first text fills the length; the others end at random, mostly inside a block, and are padded. Each is a
    question, a separator and a context (token_type_ids 0 and 1), so that it suits every head. A decoder reads
    decoder_input_ids [B, T] beside it: those of summaries, which end likewise.
    """
    rng = np.random.default_rng([seed, batch, length])
    separator = getattr(config, "sep_token_id", config.vocab_size)
    special = {config.pad_token_id, separator}
    words = np.array([i for i in range(config.vocab_size) if i not in special] or [config.pad_token_id])
    ids = rng.choice(words, size=(batch, length)).astype(np.int32)
    types = np.zeros_like(ids)
    for b in range(batch):
        end = length if b == 0 else int(rng.integers(length // 3, length)) + 1
        question = max(1, min(end // 8, 40))
        if separator < config.vocab_size and end > 1:
            ids[b, question] = separator
        types[b, question + 1 : end] = min(1, config.type_vocab_size - 1)
        ids[b, end:] = config.pad_token_id
    found = {"input_ids": ids, "token_type_ids": types}
    if DECODER_IDS in config.family.inputs:
        found[DECODER_IDS] = _read_by_decoder(config, batch, rng)
    return {name: x for name, x in found.items() if name in config.family.inputs}


def _read_by_decoder(config: Any, batch: int, rng: np.random.Generator) -> np.ndarray:
    """The start id and the tokens of summaries, of which the first fills the length, [B, T]."""
    T = min(_WRITTEN, config.decoder_length)
    special = {config.pad_token_id, config.eos_token_id}
    words = np.array([i for i in range(config.vocab_size) if i not in special] or [config.pad_token_id])
    ids = rng.choice(words, size=(batch, T)).astype(np.int32)
    ids[:, 0] = config.decoder_start_token_id
    for b in range(1, batch):
        ids[b, int(rng.integers(T // 3, T)) + 1 :] = config.pad_token_id
    return ids


def read_inputs(path: Path, say: Callable[[str], None] = lambda line: None) -> Inputs:
    """Read inputs from a .safetensors or .json file with input_ids [B, L] and, where wanted, the others of NAMES.

    say: is told what else the file holds. Raises ValueError naming the file and what is wrong with it.
    """
    try:
        if path.suffix == ".json":
            values = json.loads(read_text(path))
            arrays = {name: np.array(value) for name, value in values.items()}
        else:
            check_regular(path)
            arrays = safetensors.numpy.load_file(path)
    except (OSError, ValueError, AttributeError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{path}: expected inputs as .safetensors or .json, but it cannot be read: {error}") from None
    return select_inputs(arrays, str(path), say)


def select_inputs(
    arrays: Mapping[str, np.ndarray], origin: str, say: Callable[[str], None] = lambda line: None
) -> Inputs:
    """Return the model's inputs as int32; raises ValueError naming what is missing, misspelt, or no integer."""
    if "input_ids" not in arrays:
        raise ValueError(f"{origin}: there is no input_ids, found {', '.join(sorted(arrays)) or 'nothing'}")
    for name in sorted(set(arrays) - set(NAMES)):
        if meant := difflib.get_close_matches(name, NAMES, 1, 0.8):
            raise ValueError(f"{origin}: {name} is no input of a model: was {meant[0]} meant?")
        say(f"{origin}: {name} is no input of a model, and is passed over")
    inputs = {name: arrays[name] for name in NAMES if name in arrays}
    for name, array in inputs.items():
        if array.dtype.kind not in "iub" or array.ndim == 0:
            raise ValueError(f"{origin}: {name} is {array.dtype} {list(array.shape)}, expected an array of integers")
    _check_shapes(inputs, origin)
    return {name: array.astype(np.int32) for name, array in inputs.items()}


def _check_shapes(inputs: Inputs, origin: str) -> None:
    """Raise ValueError for an input whose axes are not those of the texts."""
    ids = inputs["input_ids"]
    if ids.ndim != 2 or not ids.size:
        raise ValueError(f"{origin}: input_ids has shape {list(ids.shape)}, expected [batch, length]")
    B, L = ids.shape
    for name, x in inputs.items():
        fitting: tuple[tuple[int, ...], ...] = ((B, L), (1, L), (L,))
        if name in _OTHERWISE:
            fitting = _OTHERWISE[name](B, x)
        if x.shape not in (*fitting, *[(B, L, L)] * (name == "attention_mask")):
            expected = ", ".join(str(list(shape)) for shape in fitting)
            raise ValueError(f"{origin}: {name} has shape {list(x.shape)}, expected one of {expected}")


def check_ids(inputs: Inputs, config: Any) -> None:
    """Raise ValueError naming the first id that its embedding does not have."""
    limits = {
        "input_ids": config.vocab_size,
        DECODER_IDS: config.vocab_size,
        "token_type_ids": config.type_vocab_size,
        "position_ids": config.max_position_embeddings,
    }
    for name, limit in limits.items():
        if name in inputs:
            outside = np.argwhere((inputs[name] < 0) | (inputs[name] >= limit))
            if len(outside):
                at = tuple(int(i) for i in outside[0])
                raise ValueError(f"{name}{list(at)} is {inputs[name][at]}, but the embedding has ids 0 .. {limit - 1}")


def for_head(inputs: Inputs, head: str, config: BigBirdConfig) -> Inputs:
    """Shape inputs for a head.

    Only question answering takes question lengths; what a decoder reads is given to heads of summaries alone; where
    texts must end, their last token is the end of the sequence; a multiple choice gets two texts each.

    The second text has the next id in place of every id of the first, but for the padding's where that says what is
    padding. Were both the same, as when a text that repeats one word is read backwards, their scores would be tied, and
    the gradients nothing but rounding.
    """
    shape = config.family.heads[head].inputs
    if shape == "question":
        return inputs
    shared = {name: x for name, x in inputs.items() if name != QUESTION_LENGTHS}
    if shape != BESIDE:
        shared.pop(DECODER_IDS, None)
    if shape == "ended":
        return shared | {"input_ids": _ended(config, shared)}
    if shape == "choices":
        ids, pad = shared["input_ids"], config.pad_token_id
        other = _next_words(config)[ids]
        if "attention_mask" not in shared:
            other = np.where(ids == pad, ids, other)
        others = shared | {"input_ids": other}
        return {name: np.stack((x, others[name]), axis=1) for name, x in shared.items()}
    return shared


def _ended(config: Any, inputs: Inputs) -> np.ndarray:
    """The ids with the end of the sequence as the last token of each text that is no padding."""
    ids = inputs["input_ids"].copy()
    real_BL = np.broadcast_to(inputs.get("attention_mask", ids != config.pad_token_id) != 0, ids.shape)
    last_B = np.where(real_BL, np.arange(ids.shape[1]), 0).max(axis=1)
    ids[np.arange(len(ids)), last_B] = config.eos_token_id
    return ids


def decoded(inputs: Inputs, config: Any, most: int | None = None) -> Inputs:
    """Return what is run token by token: the first ``most`` tokens (None: all), with another in place of padding.

    The tokens are those of the decoder, beside their text, where it reads a text.
    """
    is_beside = getattr(config, "is_encoder_decoder", False)
    name = DECODER_IDS if is_beside else "input_ids"
    ids = inputs.get(name, inputs["input_ids"])[:, :most]
    ids = np.where(ids == config.pad_token_id, max(ids.max(), config.pad_token_id + 1), ids).astype(np.int32)
    return ({"input_ids": inputs["input_ids"]} if is_beside else {}) | {name: ids}


def choices_apart(inputs: Inputs) -> Inputs:
    """Return every choice [B, C, L] as a question of its own [B x C, 1, L]; inputs of other heads as they are."""
    if inputs["input_ids"].ndim == 2:
        return inputs
    return {name: x.reshape(-1, 1, *x.shape[2:]) for name, x in inputs.items()}


def portions(inputs: Inputs, tokens: int, multiple: int = 1) -> Iterator[tuple[slice, Inputs]]:
    """Yield which texts, and their inputs: at most ``tokens`` at a time, in multiples of ``multiple``, but at least it.

    A text is an entry of the first axis: with all its choices, where it has some.
    """
    ids = inputs["input_ids"]
    step = multiple * max(1, tokens // (ids[0].size * multiple))
    for start in range(0, len(ids), step):
        texts = slice(start, min(start + step, len(ids)))
        yield texts, {name: x[texts] if len(x) == len(ids) else x for name, x in inputs.items()}


def _next_words(config: BigBirdConfig) -> np.ndarray:
    """The next id that is not the padding's, by id, int32 [vocabulary]."""
    ids = np.arange(config.vocab_size, dtype=np.int32)
    words = ids[ids != config.pad_token_id]
    return ids if not len(words) else words[np.searchsorted(words, ids, side="right") % len(words)]
