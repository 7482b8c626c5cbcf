"""Faults that need no code: other weights, another configuration, other inputs, other labels.

Each function returns what the faulty framework is given; its docstring is what reports say of the fault.

Legend: D hidden, N heads, H head size, V vocabulary, L length.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.faults.setup import Setup, Weights
from parity.given.inputs import Inputs

_SELF = "encoder.layer.{}.attention.self"
_WORDS = "embeddings.word_embeddings.embedding"


def _last(config: BigBirdConfig) -> int:
    return config.num_hidden_layers - 1


def _swap(weights: Weights, one: str, other: str) -> Weights:
    return weights | {one: weights[other], other: weights[one]}


def transposed_kernel(weights: Weights, config: BigBirdConfig) -> Weights:
    """The square kernel of the last layer's queries is transposed."""
    name = f"{_SELF.format(_last(config))}.query.kernel"
    return weights | {name: weights[name].T.copy()}


def query_key_swapped(weights: Weights, config: BigBirdConfig) -> Weights:
    """Queries and keys of the first layer are exchanged."""
    module = _SELF.format(0)
    leaves = [leaf for leaf in ("kernel", "bias") if f"{module}.query.{leaf}" in weights]
    for leaf in leaves:
        weights = _swap(weights, f"{module}.query.{leaf}", f"{module}.key.{leaf}")
    return weights


def heads_permuted(weights: Weights, config: BigBirdConfig) -> Weights:
    """The attention heads of the first layer's values are one place on, those of queries and keys are not."""
    name, N = f"{_SELF.format(0)}.value.kernel", config.num_attention_heads
    kernel_DNH = weights[name].reshape(-1, N, config.head_dim)
    return weights | {name: np.roll(kernel_DNH, 1, axis=1).reshape(weights[name].shape)}


def value_split_transposed(weights: Weights, config: BigBirdConfig) -> Weights:
    """The columns of the first layer's value kernel are read as (head size, heads), not (heads, head size)."""
    name, N = f"{_SELF.format(0)}.value.kernel", config.num_attention_heads
    kernel_DHN = weights[name].reshape(-1, config.head_dim, N)
    return weights | {name: kernel_DHN.swapaxes(1, 2).reshape(weights[name].shape)}


def output_split_transposed(weights: Weights, config: BigBirdConfig) -> Weights:
    """The rows of the first layer's attention output are read as (head size, heads), not (heads, head size)."""
    name, N = "encoder.layer.0.attention.output.dense.kernel", config.num_attention_heads
    kernel_HND = weights[name].reshape(config.head_dim, N, -1)
    return weights | {name: kernel_HND.swapaxes(0, 1).reshape(weights[name].shape)}


def gamma_beta_swapped(weights: Weights, config: BigBirdConfig) -> Weights:
    """Scale and shift of the LayerNorm after the first layer's attention are exchanged."""
    norm = "encoder.layer.0.attention.output.LayerNorm"
    return _swap(weights, f"{norm}.gamma", f"{norm}.beta")


def unbiased_variance(weights: Weights, config: BigBirdConfig) -> Weights:
    """Every LayerNorm divides by the unbiased variance (D - 1): written as a smaller scale."""
    factor = np.float32(np.sqrt(1 - 1 / config.hidden_size))
    return weights | {name: x * factor for name, x in weights.items() if name.endswith(".gamma")}


def bias_dropped(weights: Weights, config: BigBirdConfig) -> Weights:
    """The bias of the first layer's intermediate projection is not added."""
    name = "encoder.layer.0.intermediate.dense.bias"
    return weights | {name: np.zeros_like(weights[name])}


def layers_swapped(weights: Weights, config: BigBirdConfig) -> Weights:
    """The first and the last layer are exchanged."""
    first, last = "encoder.layer.0.", f"encoder.layer.{_last(config)}."
    for name in [name for name in weights if name.startswith(first)]:
        weights = _swap(weights, name, last + name.removeprefix(first)) if first != last else weights
    return weights


def next_sentence_transposed(weights: Weights, config: BigBirdConfig) -> Weights:
    """The kernel of next-sentence prediction, stored as [2, D], is read as [D, 2]."""
    name = "cls.seq_relationship.kernel"
    return weights | {name: weights[name].reshape(-1, 2).T.copy()}


def one_bfloat16_weight(weights: Weights, config: BigBirdConfig) -> Weights:
    """One kernel, of the last layer's output, went through bfloat16."""
    name = f"encoder.layer.{_last(config)}.output.dense.kernel"
    return weights | {name: weights[name].astype(ml_dtypes.bfloat16).astype(np.float32)}


def one_element(weights: Weights, config: BigBirdConfig) -> Weights:
    """One element of the first layer's intermediate kernel is 1 % too large."""
    name = "encoder.layer.0.intermediate.dense.kernel"
    kernel = weights[name].copy()
    kernel[3, 2] *= 1.01
    return weights | {name: kernel}


def vocabulary_shifted(weights: Weights, config: BigBirdConfig) -> Weights:
    """Every token has the embedding of the token before it in the vocabulary."""
    return weights | {_WORDS: np.roll(weights[_WORDS], 1, axis=0)}


def language_bias_dropped(weights: Weights, config: BigBirdConfig) -> Weights:
    """The language model's bias of the vocabulary is not added."""
    return weights | {"cls.predictions.bias": np.zeros_like(weights["cls.predictions.bias"])}


def pooler_transposed(weights: Weights, config: BigBirdConfig) -> Weights:
    """The square kernel of the pooler is transposed."""
    return weights | {"pooler.kernel": weights["pooler.kernel"].T.copy()}


def spans_swapped(weights: Weights, config: BigBirdConfig) -> Weights:
    """Start and end scores of question answering are exchanged."""
    module = "qa_classifier.qa_outputs"
    kernel, bias = weights[f"{module}.kernel"], weights[f"{module}.bias"]
    return weights | {f"{module}.kernel": kernel[:, ::-1].copy(), f"{module}.bias": bias[::-1].copy()}


def large_epsilon(setup: Setup) -> dict[str, Any]:
    """LayerNorm adds 1e-5 to the variance, not the original's 1e-12."""
    return {"layer_norm_eps": 1e-5}


def exact_gelu(setup: Setup) -> dict[str, Any]:
    """The activation is the exact gelu, not the original's tanh approximation."""
    return {"hidden_act": "gelu"}


def zeroed_random_plan(setup: Setup) -> dict[str, Any]:
    """Every random block is block 0, as in transformers' evaluation mode."""
    return {"random_blocks": "transformers"}


def rescale_missing(setup: Setup) -> dict[str, Any]:
    """Word embeddings are not multiplied by the root of the hidden size."""
    return {"rescale_embeddings": False}


def wrong_pad_id(setup: Setup) -> dict[str, Any]:
    """Padding is recognised by another id than the model's."""
    return {"pad_token_id": (setup.config.pad_token_id + 1) % setup.config.vocab_size}


def wrong_head_count(setup: Setup) -> dict[str, Any]:
    """Attention is split into half as many heads (twice as many, where the number is odd)."""
    N = setup.config.num_attention_heads
    return {"num_attention_heads": N // 2 if N % 2 == 0 else 2 * N}


def pattern_of_batch_length(setup: Setup) -> dict[str, Any]:
    """The attention pattern is that of the batch's length, not of max_encoder_length."""
    return {"max_encoder_length": setup.length}


def full_attention(setup: Setup) -> dict[str, Any]:
    """Every query attends to every key, where the model is block-sparse."""
    return {"attention_type": "original_full"}


def fewer_random_blocks(setup: Setup) -> dict[str, Any]:
    """There is one random block less in a row of the pattern."""
    return {"num_random_blocks": max(1, setup.config.num_random_blocks - 1)}


def _ids(inputs: Inputs) -> np.ndarray:
    return inputs["input_ids"]


def positions_shifted(inputs: Inputs, setup: Setup) -> Inputs:
    """Positions are counted from 1, not from 0 (the last one stays within the embeddings)."""
    positions_L = np.minimum(np.arange(setup.length) + 1, setup.config.max_position_embeddings - 1)
    return inputs | {"position_ids": np.broadcast_to(positions_L, _ids(inputs).shape).astype(np.int32)}


def token_types_ignored(inputs: Inputs, setup: Setup) -> Inputs:
    """Every token has type 0."""
    return inputs | {"token_type_ids": np.zeros_like(_ids(inputs))}


def token_types_all_ones(inputs: Inputs, setup: Setup) -> Inputs:
    """Every token has type 1."""
    return inputs | {"token_type_ids": np.full_like(_ids(inputs), min(1, setup.config.type_vocab_size - 1))}


def padding_attended(inputs: Inputs, setup: Setup) -> Inputs:
    """Padding counts as text."""
    return inputs | {"attention_mask": np.ones_like(_ids(inputs))}


def question_too_long(inputs: Inputs, setup: Setup) -> Inputs:
    """The question is taken to be one token longer than it is."""
    lengths = inputs.get("question_lengths")
    if lengths is None:
        lengths = (_ids(inputs) == setup.config.sep_token_id).argmax(axis=1) + 1
    return inputs | {"question_lengths": (lengths + 1).astype(np.int32)}


def labels_off_by_one(labels: Inputs) -> Inputs:
    """Labels of the loss are one place off: the next token's, the position after, the next text's."""
    moved = {name: np.roll(x, 1, axis=-1) if x.ndim > 1 and x.shape[-1] > 1 else x + 1 for name, x in labels.items()}
    return moved | {name: _next_class(x) for name, x in labels.items() if x.ndim == 1 and "position" not in name}


def _next_class(labels_B: np.ndarray) -> np.ndarray:
    return 1 - labels_B.clip(0, 1)
