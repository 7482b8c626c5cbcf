"""How many bytes a device sends for one encoder layer, along each axis of a mesh; counted, not measured.

Collectives are taken as rings, which every device sends as much through as it receives: of an array of P bytes, p
devices each send 2 (p - 1) / p P to reduce it to its sum on all, and (p - 1) / p P to gather it from its pieces, or to
reduce it to pieces of the sum. tests/models/test_flax_sharding.py compares the counts with compiled programs.

Legend: W block size, H head size, L length, D hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bigbird_port.config import BigBirdConfig
from bigbird_port.exchange import Exchange
from bigbird_port.schema import weights_of

Kind = Literal["all-reduce", "all-gather", "reduce-scatter", "permute"]
_FLOAT32 = 4  # bytes of softmax sums, which are that wide at least, and of a mask's elements on their way
_RING = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": 1.0}


@dataclass(frozen=True)
class Transfer:
    """One collective. payload: bytes of its array (gathered or scattered: of the whole), on each of ``devices``.

    again: whether the gradient sends as much once more.
    """

    what: str
    kind: Kind
    payload: int
    devices: int
    again: bool = True

    @property
    def sent(self) -> float:
        """Bytes that a device sends; at the ends of a row, permute sends less."""
        if self.kind == "permute":
            return self.payload if self.devices > 1 else 0
        return _RING[self.kind] * (self.devices - 1) / self.devices * self.payload


def sequence_transfers(
    config: BigBirdConfig, exchange: Exchange, texts: int = 1, model: int = 1, itemsize: int = 4
) -> list[Transfer]:
    """Return what block-sparse attention sends along "sequence", forward: key blocks, global queries, their results.

    texts: on a device. model: size of that axis. itemsize: bytes of an element.
    """
    W, s = config.block_size, exchange.devices
    rows = texts * config.num_attention_heads // model * W  # of one block
    block, mask = rows * config.head_dim * itemsize, texts * W * _FLOAT32
    shared, global_blocks = len(exchange.shared), len(exchange.global_blocks)
    sums = global_blocks * rows * _FLOAT32
    return [
        Transfer("keys and values of neighbours' blocks", "permute", 2 * 2 * block, s),
        Transfer("masks of neighbours' blocks", "permute", 2 * mask, s, again=False),
        Transfer("keys and values of shared blocks", "all-reduce", shared * 2 * block, s),
        Transfer("masks of shared blocks", "all-reduce", shared * mask, s, again=False),
        Transfer("global blocks' queries", "all-reduce", global_blocks * block, s),
        Transfer("their largest scores and sums of weights", "all-reduce", 2 * sums, s, again=False),
        Transfer("their weighted values", "all-reduce", config.head_dim * sums, s),
    ]


def gathered_transfers(
    config: BigBirdConfig, exchange: Exchange, texts: int = 1, model: int = 1, itemsize: int = 4
) -> list[Transfer]:
    """Return what it would take to give every device all keys and values, for comparison."""
    s, _, b, _ = exchange.key_blocks.shape
    rows = texts * config.num_attention_heads // model * config.block_size
    payload = s * b * 2 * rows * config.head_dim * itemsize
    return [Transfer("all keys and values", "all-gather", payload, s)]


def tensor_transfers(config: BigBirdConfig, tokens: int, model: int, itemsize: int = 4) -> list[Transfer]:
    """Return what tensor parallelism sends along "model", forward. tokens: on a device."""
    payload = tokens * config.hidden_size * itemsize
    return [Transfer(f"outputs of {part}", "all-reduce", payload, model) for part in ("attention", "feed-forward")]


def layer_bytes(config: BigBirdConfig, model: int = 1, itemsize: int = 4) -> int:
    """Return the bytes of a layer's parameters on a device; small ones that are whole count as split."""
    rows = [row for row in weights_of(config, "base") if row.name.startswith("encoder.layer.0.")]
    return sum(math.prod(row.shape(config)) for row in rows) * itemsize // model


def data_transfers(parameters: int, data: int) -> list[Transfer]:
    """Return what DDP (and Flax with its parameters on every device) sends along "data" for a layer's gradients."""
    return [Transfer("gradients", "all-reduce", parameters, data, again=False)]


def fully_sharded_transfers(parameters: int, data: int) -> list[Transfer]:
    """Return what FSDP sends along "data" for a layer, forward and backward. parameters: bytes of a layer."""
    kinds: dict[str, Kind] = {
        "parameters, forward": "all-gather",
        "parameters, backward": "all-gather",
        "gradients": "reduce-scatter",
    }
    return [Transfer(what, kind, parameters, data, again=False) for what, kind in kinds.items()]


def sent(transfers: list[Transfer]) -> float:
    """Return the bytes that a device sends in all of them."""
    return sum(transfer.sent for transfer in transfers)
