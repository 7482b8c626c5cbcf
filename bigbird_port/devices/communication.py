"""How many bytes a device sends for one encoder layer, along each axis of a mesh.

The bytes are counted, not measured. Every collective counts as a ring, in which a device sends as much as it receives.
For an array of P bytes on p devices, each device sends

* 2 (p - 1) / p P for an all-reduce: the sum of the array over the devices, on every device;
* (p - 1) / p P for an all-gather: the whole array on every device, from pieces;
* (p - 1) / p P for a reduce-scatter: a piece of the sum on every device.

tests/models/test_flax_sharding.py compares the counts with compiled programs.

Legend: W block size, H head size, L length, D hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bigbird_port.devices.exchange import Exchange
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.place import LAYER

Kind = Literal["all-reduce", "all-gather", "reduce-scatter", "permute"]
_FLOAT32 = 4  # bytes of an element of softmax sums, and of a mask while it is sent
_RING = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": 1.0}


@dataclass(frozen=True)
class Transfer:
    """One collective operation.

    payload: bytes of the array; for all-gather and reduce-scatter, of the whole array. devices: how many take part.
    again: whether the gradient sends as much once more.
    """

    what: str
    kind: Kind
    payload: int
    devices: int
    again: bool = True

    @property
    def sent(self) -> float:
        """Bytes that a device sends. With permute, the first and the last device of a row send less."""
        if self.kind == "permute":
            return self.payload if self.devices > 1 else 0
        return _RING[self.kind] * (self.devices - 1) / self.devices * self.payload


def sequence_transfers(
    config: BigBirdConfig, exchange: Exchange, texts: int = 1, model: int = 1, itemsize: int = 4
) -> list[Transfer]:
    """Return what block-sparse attention sends along "sequence" in the forward pass.

    Sent are key blocks, the queries of global blocks, and the results of these queries.

    texts: how many a device has. model: size of the mesh axis "model". itemsize: bytes of an element.
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
    """Return what would be sent if every device gathered all keys and values. It serves as a comparison."""
    s, _, b, _ = exchange.key_blocks.shape
    rows = texts * config.num_attention_heads // model * config.block_size
    payload = s * b * 2 * rows * config.head_dim * itemsize
    return [Transfer("all keys and values", "all-gather", payload, s)]


def tensor_transfers(config: BigBirdConfig, tokens: int, model: int, itemsize: int = 4) -> list[Transfer]:
    """Return what tensor parallelism sends along "model" in the forward pass. tokens: how many a device has."""
    payload = tokens * config.hidden_size * itemsize
    return [Transfer(f"outputs of {part}", "all-reduce", payload, model) for part in ("attention", "feed-forward")]


def layer_bytes(config: BigBirdConfig, model: int = 1, itemsize: int = 4) -> int:
    """Return the bytes of a layer's parameters on a device.

    A few small parameters stay whole on every device. They are counted as if they were split.
    """
    family = config.family
    rows = [row for row in family.schema if LAYER in row.name and family.base in row.heads and row.exists(config)]
    return sum(math.prod(row.shape(config)) for row in rows) * itemsize // model


def data_transfers(parameters: int, data: int) -> list[Transfer]:
    """Return what is sent along "data" for a layer's gradients, where every device has all parameters (DDP, Flax).

    parameters: bytes of a layer.
    """
    return [Transfer("gradients", "all-reduce", parameters, data, again=False)]


def fully_sharded_transfers(parameters: int, data: int) -> list[Transfer]:
    """Return what FSDP sends along "data" for a layer, in the forward and the backward pass.

    parameters: bytes of a layer.
    """
    kinds: dict[str, Kind] = {
        "parameters, forward": "all-gather",
        "parameters, backward": "all-gather",
        "gradients": "reduce-scatter",
    }
    return [Transfer(what, kind, parameters, data, again=False) for what, kind in kinds.items()]


def sent(transfers: list[Transfer]) -> float:
    """Return the bytes that a device sends in all transfers."""
    return sum(transfer.sent for transfer in transfers)
