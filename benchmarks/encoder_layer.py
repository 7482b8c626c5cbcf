"""One encoder layer of the base model, forward, one thread: transformers', ours, and ours in fast_linears.

12 heads x 64, inner 3072, block 64, 3 random blocks, batch 1, float32, the same weights and key blocks (transformers'
evaluation mode). Outputs are checked for equality to 1e-5 of the largest value before anything is timed; times are
medians of the processor's.

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
    print("length  transformers ms  ours ms  ratio  ours, fast_linears ms  ratio")
    for row in rows:
        peer, ours, fast = row["peer_ms"], row["ours_ms"], row["fast_ms"]
        print(f"{row['length']:6}  {peer:15.1f}  {ours:7.1f}  {peer / ours:4.1f}x  {fast:21.1f}  {peer / fast:4.1f}x")
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
    return {"length": length, "repeats": REPEATS, **{f"{name}_ms": ms for name, ms in times.items()}}


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
