"""The base model on a batch of mixed lengths, forward, one thread: transformers' torch model and ours.

4 texts of 200 to 4096 tokens, padded to 4096; the same weights and key blocks (transformers' evaluation mode). Every
run's hidden states of real tokens are checked for equality to 1e-5 of the largest value. Times are the processor's.

    python benchmarks/mixed_batch.py [--layers 12] [--repeats 5] [--json FILE]
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
from attention import machine, settings

from bigbird_port.config import BigBirdConfig
from models_torch import BigBirdModel

LENGTHS = (200, 1499, 2797, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        found = measure(arguments.layers, arguments.repeats)
    print(f"base model, {arguments.layers} layers, texts of {', '.join(map(str, LENGTHS))} tokens, one thread")
    print("           ms     ratio")
    for name in ("peer", "padded", "ours"):
        print(f"{name:7}  {found[f'{name}_ms']:8.0f}  {found['peer_ms'] / found[f'{name}_ms']:4.2f}x")
    if arguments.json:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine(), "versions": versions, "lengths": LENGTHS, **found}, file, indent=1)


def measure(layers: int, repeats: int) -> dict[str, Any]:
    """Medians in milliseconds of transformers ("peer"), of ours with padding run ("padded") and skipped ("ours")."""
    from transformers import BigBirdConfig as PeerConfig
    from transformers import BigBirdModel as PeerModel

    shape = settings(max(LENGTHS)) | {"num_hidden_layers": layers}
    model = BigBirdModel.from_config(BigBirdConfig(**shape, random_blocks="transformers"))
    peer = PeerModel(PeerConfig(**shape)).eval()
    peer.load_state_dict(model.state_dict())
    ids = torch.randint(5, model.config.vocab_size, (len(LENGTHS), max(LENGTHS)), generator=torch.manual_seed(0))
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]

    def ours(skip_padding: bool) -> torch.Tensor:
        model.encoder.skip_padding = skip_padding
        return model(ids, mask).last_hidden_state

    runs: dict[str, Callable[[], torch.Tensor]] = {
        "peer": lambda: peer(ids, mask.long()).last_hidden_state,
        "padded": lambda: ours(False),
        "ours": lambda: ours(True),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        hidden = {}
        for name, run in runs.items():
            start = time.process_time()
            hidden[name] = run()[mask]
            times[name].append(1e3 * (time.process_time() - start))
        differences = {name: float((x - hidden["peer"]).abs().max() / x.abs().max()) for name, x in hidden.items()}
        if not max(differences.values()) < 1e-5:
            raise SystemExit(f"they differ by {differences}: nothing to time")
    medians = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return {"layers": layers, "repeats": repeats, "max_difference": max(differences.values()), **medians}


if __name__ == "__main__":
    main()
