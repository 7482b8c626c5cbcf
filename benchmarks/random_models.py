"""Models drawn at random from everything that a configuration may say: widths, depths, activations, patterns, scales.

Legend: B batch, L length, D hidden, W block size, r random blocks, n blocks.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.families.fields import HIDDEN_ACTS
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import weights_of
from bigbird_port.sparse.pattern import pattern_blocks
from parity.faults.setup import Setup, own_inputs

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 8, 12, 12, 16, 16, 24, 24, 32, 32, 48, 64, 64, 96, 128, 192, 256, 512, 768, 1024)
LAYERS = (1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 6, 8, 12, 24)
BLOCKS = (1, 2, 4, 8, 16, 32, 64, 128)
SCALES = (0.005, 1.0)  # of the initial weights, drawn by their logarithm
_CHUNKS = 1 << 10  # most blocks of queries, which the reference takes one at a time
OF_A_SHAPE = 6
_FIELDS = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "hidden_act", "block_size")
_FIELDS += ("num_random_blocks", "random_blocks", "rescale_embeddings", "use_bias", "classifier_style", "num_labels")
_TOKENS = 1 << 15  # most of D x layers x B x L, so that many models run in an hour


@dataclass(frozen=True)
class Model:
    """A drawn model. scale: the standard deviation of its kernels and embeddings."""

    setup: Setup
    scale: float


def draw_model(seed: int, index: int) -> Model:
    """Return model number ``index`` of a seed. Six in succession have one shape, and other weights, scales and inputs.

    So Flax compiles one of six. The heads take turns.
    """
    shape = index // OF_A_SHAPE
    rng = np.random.default_rng([seed, shape])
    head = list(HEADS)[shape % len(HEADS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lengths for which the original has no plan
        config, batch, length = _config(rng, head)
    config, rng = config.for_head(head), np.random.default_rng([seed, shape, index])
    scale, beside = float(np.exp(rng.uniform(*np.log(SCALES)))), rng.choice([0.0, 0.1, 0.5])
    weights = {}
    for row in {row.name: row for side in ("torch", "flax") for row in weights_of(config, head, side)}.values():
        value = initial_value(row, config, index)
        if row.init == "normal":
            value = value * np.float32(scale / config.initializer_range)
        else:  # biases, and the factors of LayerNorm
            value = value + rng.normal(0, beside, value.shape).astype(np.float32)
        weights[row.name] = value
    inputs = own_inputs(config, head, batch, length, index)
    return Model(Setup(f"{seed}.{index}", head, config, weights, inputs, index), scale)


def describe(model: Model) -> dict[str, Any]:
    """The model in figures."""
    config, (B, *_, L) = model.setup.config, model.setup.inputs["input_ids"].shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blocks = pattern_blocks(config, L)
    figures = {name: getattr(config, name) for name in _FIELDS}
    return figures | {"scale": model.scale, "batch": B, "length": L, "blocks": blocks}


def _config(rng: np.random.Generator, head: str) -> tuple[BigBirdConfig, int, int]:
    """A configuration, and the batch and length to run it on, which are as small as its width and depth ask for."""
    D, layers = int(rng.choice(WIDTHS)), int(rng.choice(LAYERS))
    while D * layers > 2048:
        layers = int(rng.choice(LAYERS))
    heads = int(rng.choice([n for n in (1, 2, 3, 4, 6, 8, 12, 16) if D % n == 0]))
    W, r = int(rng.choice(BLOCKS)), int(rng.integers(1, 6))
    batch, kind = int(rng.integers(1, 4)), str(rng.choice(["full", "transformers", "original"]))
    most = max(8, min(_TOKENS // (D * layers * batch), int((16 * _TOKENS / (layers * batch * heads)) ** 0.5)))
    if kind != "full":
        most = min(most, max(8, _CHUNKS * W // (batch * heads * layers)))
    length = _length(rng, kind, W, r, most)
    if kind == "original" and length <= 512:
        kind = "transformers"
    factors = {"sequence-classification": (1, 2, 5), "token-classification": (2, 3, 9)}.get(head, (2,))
    return (
        BigBirdConfig(
            vocab_size=int(rng.choice([7, 50, 211, 1000])),
            sep_token_id=5,
            hidden_size=D,
            num_attention_heads=heads,
            num_hidden_layers=layers,
            intermediate_size=int(rng.choice([1, D, 2 * D, 4 * D])),
            hidden_act=str(rng.choice(HIDDEN_ACTS)),
            layer_norm_eps=float(rng.choice([1e-12, 1e-12, 1e-5])),
            max_position_embeddings=max(length, 16),
            type_vocab_size=int(rng.integers(1, 4)),
            attention_type="original_full" if kind == "full" else "block_sparse",
            random_blocks="original" if kind == "original" else "transformers",
            max_encoder_length=length if kind == "original" else None,
            block_size=W,
            num_random_blocks=r,
            use_bias=bool(rng.integers(2)),
            rescale_embeddings=bool(rng.integers(2)),
            classifier_style=str(rng.choice(["original", "transformers"])),
            num_labels=int(rng.choice(factors)),
        ),
        batch,
        length,
    )


def _length(rng: np.random.Generator, kind: str, W: int, r: int, most: int) -> int:
    """A length: anything for full attention, else one that has a pattern where ``most`` allows it."""
    least = {"full": 1, "transformers": (5 + 2 * r) * W + 1, "original": 513}[kind]
    if least > most:
        return int(rng.integers(1, min(most, 128) + 1))
    return int(rng.integers(least, min(most, least + 200) + 1))
