"""One encoder layer of the base model, forward, one thread: transformers', ours, and ours in fast_linears.

12 heads x 64, inner 3072, block 64, 3 random blocks, batch 1, float32, the same weights and key blocks (transformers'
evaluation mode). Outputs are checked for equality to 1e-5 of the largest value before anything is timed; times are
medians of the processor's. The floors are the layer's multiplications at the rate that one large linear layer reaches
in the same run: as torch runs it (MKL), and the faster of that and oneDNN's from weights laid out once (best).

    python benchmarks/encoder_layer.py [--lengths 1024,4096] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from attention import REPEATS, machine, make_arrays, settings

from bigbird_port.config import BigBirdConfig
from models_torch.attention import KeyLists
from models_torch.encoder import BigBirdLayer, encoder_lists
from models_torch.inference import fast_linears


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="1024,4096")
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        rows = [measure(int(length)) for length in arguments.lengths.split(",")]
    print("length  transformers ms  ours ms  ratio  of floor  fast_linears ms  ratio  of best floor  GFLOP")
    for row in rows:
        peer, ours, fast = row["peer_ms"], row["ours_ms"], row["fast_ms"]
        print(
            f"{row['length']:6}  {peer:15.1f}  {ours:7.1f}  {peer / ours:4.1f}x  {ours / row['floor_ms']:7.2f}x  "
            f"{fast:15.1f}  {peer / fast:4.1f}x  {fast / row['best_floor_ms']:12.2f}x  {row['gflop']:5.1f}"
        )
    if arguments.json:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine(), "versions": versions, "results": rows}, file, indent=1)


def measure(length: int) -> dict[str, Any]:
    from transformers import BigBirdConfig as PeerConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdLayer as PeerLayer
    from transformers.models.big_bird.modeling_big_bird import BigBirdModel

    config = BigBirdConfig(**settings(length), random_blocks="transformers")
    torch.manual_seed(0)
    layer = BigBirdLayer(config).eval()
    peer = PeerLayer(PeerConfig(**settings(length)), seed=0).eval()
    peer.load_state_dict(layer.state_dict())
    x = torch.from_numpy(make_arrays(length)[0]).transpose(1, 2).flatten(2).contiguous()
    mask, lists = torch.ones(1, length, dtype=torch.bool), encoder_lists(config, 0, length, x.device)
    blocked, band, from_mask, to_mask = BigBirdModel.create_masks_for_block_sparse_attn(mask.float(), config.block_size)
    masks = {"band_mask": band, "from_mask": from_mask, "to_mask": to_mask, "blocked_encoder_mask": blocked}

    def ours() -> torch.Tensor:
        return layer(x, mask, lists)[0]

    def theirs() -> torch.Tensor:
        return peer(x, **masks)[0]

    expected = theirs()
    times = {"peer": timed("peer", theirs, expected), "ours": timed("ours", ours, expected)}
    with fast_linears(layer):
        times["fast"] = timed("fast", ours, expected)
    gflop, rates = multiplications(config, lists, length), matmul_rates(length)
    floors = {"floor": gflop / rates["torch"], "best_floor": gflop / max(rates.values())}
    figures = {f"{name}_ms": ms for name, ms in (times | {name: 1e3 * s for name, s in floors.items()}).items()}
    return {"length": length, "repeats": REPEATS, "gflop": gflop, "gflop_per_second": rates, **figures}


def multiplications(config: BigBirdConfig, lists: KeyLists, length: int) -> float:
    """GFLOP of a layer's matrix products: of its linear layers, and of the pairs of blocks that attention needs."""
    D, W = config.hidden_size, config.block_size
    linear = 2 * length * (4 * D * D + 2 * D * config.intermediate_size)
    (text,), (own,) = lists.texts, lists.global_blocks
    pairs = int((lists.counts > 0).sum()) + config.num_attention_heads * len(own) * text.blocks
    return (linear + 4 * pairs * W * W * config.head_dim) / 1e9


def matmul_rates(rows: int) -> dict[str, float]:
    """GFLOP a second of a linear layer from 768 to 3072, as torch runs it and in fast_linears."""
    x, linear = torch.randn(rows, 768), torch.nn.Linear(768, 3072)
    expected, gflop = linear(x), 2 * rows * 768 * 3072 / 1e9
    rates = {"torch": 1e3 * gflop / timed("linear", lambda: linear(x), expected)}
    with fast_linears(linear):
        rates["onednn"] = 1e3 * gflop / timed("linear", lambda: linear(x), expected)
    return rates


def timed(name: str, run: Callable[[], torch.Tensor], expected: torch.Tensor) -> float:
    """Median milliseconds of the processor, after an untimed run that must give what is expected."""
    difference = float((run() - expected).abs().max() / expected.abs().max())
    if not difference < 1e-5:
        raise SystemExit(f"{name} differs by {difference}: nothing to time")
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


if __name__ == "__main__":
    main()
