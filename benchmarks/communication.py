"""Print how many bytes a device sends for a layer of the base model: the tables of docs/scaling.md."""

from __future__ import annotations

from bigbird_port.devices.communication import (
    data_transfers,
    fully_sharded_transfers,
    gathered_transfers,
    layer_bytes,
    sent,
    sequence_transfers,
    tensor_transfers,
)
from bigbird_port.devices.exchange import Exchange, make_exchange
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import layer_pattern

LENGTHS = (4096, 16384, 65536)
DEVICES = (2, 4, 8)
MIB = 2**20


def base(length: int) -> BigBirdConfig:
    """The base model for texts of ``length`` tokens."""
    return BigBirdConfig(max_encoder_length=length, max_position_embeddings=length)


def exchange_of(length: int, devices: int) -> Exchange:
    """What layer 0 exchanges."""
    pattern = layer_pattern(base(length), 0, length)
    assert pattern is not None
    return make_exchange(pattern, length // base(length).block_size, devices)


def sequence_table() -> str:
    """The sequence axis against gathering all keys."""
    lines = [
        "| length | s | blocks of a device | shared blocks | MiB sent | by gathering all keys | times less |",
        "|---|---|---|---|---|---|---|",
    ]
    for length in LENGTHS:
        for s in DEVICES:
            config, exchange = base(length), exchange_of(length, s)
            ours, naive = (
                sent(transfers(config, exchange)) / MIB for transfers in (sequence_transfers, gathered_transfers)
            )
            cells = length, s, exchange.key_blocks.shape[2], len(exchange.shared)
            lines.append(f"| {' | '.join(map(str, cells))} | {ours:.2f} | {naive:.2f} | {naive / ours:.1f} |")
    return "\n".join(lines)


def other_table() -> str:
    """The model and data axes."""
    lines = ["| axis | what | 2 devices | 4 devices | 8 devices |", "|---|---|---|---|---|"]
    config = base(LENGTHS[0])
    rows = {
        f"| model | tensor parallelism, {length} tokens, forward": [
            tensor_transfers(config, length, p) for p in DEVICES
        ]
        for length in LENGTHS
    }
    parameters = layer_bytes(config)
    rows["| data | DDP, or Flax: a step's gradients"] = [data_transfers(parameters, p) for p in DEVICES]
    rows["| data | FSDP2: a step's parameters and gradients"] = [
        fully_sharded_transfers(parameters, p) for p in DEVICES
    ]
    lines += [f"{name} | {' | '.join(f'{sent(x) / MIB:.2f}' for x in cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def main() -> None:
    print("MiB that a device sends for one layer of the base model (12 x 64, block 64, r 3), one text, float32\n")
    print(sequence_table())
    print()
    print(other_table())


if __name__ == "__main__":
    main()
