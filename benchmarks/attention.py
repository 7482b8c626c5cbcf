"""One block-sparse attention, forward and with its gradient, against transformers' own: time and peak memory.

12 heads x 64, block 64, 3 random blocks, batch 1, float32, one thread. Both sides use the same key blocks
(transformers' evaluation mode); outputs and gradients are checked for equality before anything is timed. Times are
those of the processor, which other work on the machine disturbs least: medians, and minima in the JSON.

    python benchmarks/attention.py [--lengths 1024,4096] [--backward] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LENGTHS = (1024, 2048, 4096, 8192, 16384)
HEADS, HEAD_DIM, BLOCK, RANDOM = 12, 64, 64, 3
REPEATS = 5
MIB = 2**20
Measured = dict[str, Any]
Arrays = tuple[np.ndarray, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--framework", choices=("torch", "flax"), help="measure one, and print JSON")
    parser.add_argument("--backward", action="store_true", help="forward and backward, not forward alone")
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    lengths = [int(length) for length in arguments.lengths.split(",")]
    if arguments.framework:
        measure = {"torch": measure_torch, "flax": measure_flax}[arguments.framework]
        print(json.dumps([measure(length, arguments.backward) for length in lengths]))
        return
    results = {
        framework: in_one_thread(framework, arguments.lengths, arguments.backward) for framework in ("torch", "flax")
    }
    print_table(results, "forward and backward" if arguments.backward else "forward")
    if arguments.json:
        names = ("torch", "jax", "flax", "transformers", "numpy")
        versions = {name: importlib.metadata.version(name) for name in names}
        record = {"machine": machine(), "versions": versions, "backward": arguments.backward, "results": results}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)


def machine() -> Measured:
    """What the figures depend on beside the versions."""
    described = pathlib.Path("/proc/cpuinfo")  # where there is one, it says more
    lines = described.read_text("utf-8").splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return {"processor": name, "processors": os.cpu_count(), "threads": 1}


def in_one_thread(framework: str, lengths: str, backward: bool) -> list[Measured]:
    """Measure in a process of its own, bound to one processor."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "USE_TF": "0"}
    command = [sys.executable, "-W", "ignore", __file__, "--framework", framework, "--lengths", lengths]
    command += ["--backward"] * backward
    processor = max(os.sched_getaffinity(0))
    process = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {processor}),
    )
    if process.returncode:
        raise SystemExit(process.stderr)
    return json.loads(process.stdout)


def make_arrays(length: int) -> list[np.ndarray]:
    rng = np.random.default_rng(length)
    return [rng.standard_normal((1, HEADS, length, HEAD_DIM), np.float32) for _ in range(3)]


def make_gradient(length: int) -> np.ndarray:
    return np.random.default_rng(length + 1).standard_normal((1, length, HEADS, HEAD_DIM), np.float32)


def settings(length: int) -> dict[str, Any]:
    return {
        "hidden_size": HEADS * HEAD_DIM,
        "num_attention_heads": HEADS,
        "block_size": BLOCK,
        "num_random_blocks": RANDOM,
        "max_position_embeddings": length,
    }


def compare(length: int, ours: Callable[[], Arrays], peer: Callable[[], Arrays]) -> Measured:
    """Check that both give the same, to 1e-5 of the largest value, then time them in turn.

    Each timed run follows an untimed one of the same side, so that neither pays for memory that the other gave back.
    """
    pairs = list(zip(ours(), peer(), strict=True))
    difference = max(float(np.abs(a - b).max()) for a, b in pairs)
    if not all(np.abs(a - b).max() < 1e-5 * max(1, np.abs(b).max()) for a, b in pairs):
        raise SystemExit(f"length {length}: the two differ by {difference}: nothing to time")
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(REPEATS):
        for name, run in (("ours", ours), ("peer", peer)):
            run()
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))
    medians = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    minima = {f"{name}_least_ms": min(values) for name, values in times.items()}
    return {"length": length, "max_abs_difference": difference, "repeats": REPEATS, **medians, **minima}


def measure_torch(length: int, backward: bool) -> Measured:
    import torch
    from transformers import BigBirdConfig as PeerConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

    from bigbird_port.config import BigBirdConfig
    from bigbird_port.pattern import layer_pattern
    from models_torch.attention import block_sparse_attention, key_lists

    torch.set_num_threads(1)
    q, k, v = (torch.from_numpy(x) for x in make_arrays(length))
    config = BigBirdConfig(**settings(length), random_blocks="transformers")
    lists = key_lists(layer_pattern(config, 0, length), q.device)
    mask = torch.ones(1, length, dtype=torch.bool)
    peer_module = BigBirdBlockSparseAttention(PeerConfig(**settings(length)), seed=0).eval()
    blocked, band, from_mask, to_mask = BigBirdModel.create_masks_for_block_sparse_attn(mask.float(), BLOCK)

    def ours() -> Any:
        return block_sparse_attention(q, k, v, mask, lists, BLOCK)

    def peer() -> Any:
        masks = (band, from_mask, to_mask, blocked, blocked)
        sizes = (HEADS, RANDOM, HEAD_DIM, BLOCK, BLOCK, 1, length, length)
        return peer_module.bigbird_block_sparse_attention(q, k, v, *masks, *sizes, 0, None, None, False)[0]

    gradient = torch.from_numpy(make_gradient(length))

    def run(attention: Callable[[], Any]) -> tuple[Any, ...]:
        if not backward:
            return (attention(),)
        context = attention()
        return (context.detach(), *torch.autograd.grad(context, (q, k, v), gradient))

    for x in (q, k, v):
        x.requires_grad_(backward)
    with torch.set_grad_enabled(backward):
        result = compare(length, *(lambda side=side: tuple(x.numpy() for x in run(side)) for side in (ours, peer)))
        peaks = {name: torch_peak(lambda side=side: run(side)) for name, side in (("ours", ours), ("peer", peer))}
        return result | {f"{name}_mib": peak / MIB for name, peak in peaks.items()}


def torch_peak(run: Callable[[], Any]) -> int:
    """Most bytes that torch held at once beyond those it held at the start."""
    import torch

    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure_flax(length: int, backward: bool) -> Measured:
    import jax
    from transformers import BigBirdConfig as PeerConfig
    from transformers.models.big_bird.modeling_flax_big_bird import FlaxBigBirdBlockSparseAttention as Peer

    from bigbird_port.config import BigBirdConfig
    from bigbird_port.pattern import layer_pattern
    from models_flax.attention import block_sparse_attention, key_lists

    q, k, v = (jax.numpy.asarray(x) for x in make_arrays(length))
    config = BigBirdConfig(**settings(length), random_blocks="transformers")
    lists = key_lists(layer_pattern(config, 0, length))
    mask = jax.numpy.ones((1, length), bool)
    peer_module = Peer(PeerConfig(**settings(length)), block_sparse_seed=0)

    def ours(q: Any, k: Any, v: Any) -> Any:
        return block_sparse_attention(q, k, v, mask, lists, BLOCK)

    def peer(q: Any, k: Any, v: Any) -> Any:
        blocked, band, from_mask, to_mask = Peer.create_masks_for_block_sparse_attn(mask.astype("float32"), BLOCK)
        masks = (band, from_mask, to_mask, blocked, blocked)
        method = Peer.bigbird_block_sparse_attention
        context = peer_module.apply({}, q, k, v, *masks, HEADS, HEAD_DIM, method=method)[0]
        return context.reshape(1, length, HEADS, HEAD_DIM)

    gradient = jax.numpy.asarray(make_gradient(length))

    def run(attention: Callable[..., Any]) -> Callable[..., Any]:
        if not backward:
            return lambda *qkv: (attention(*qkv),)

        def both(*qkv: Any) -> tuple[Any, ...]:
            context, vjp = jax.vjp(attention, *qkv)
            return (context, *vjp(gradient))

        return both

    compiled = {side.__name__: jax.jit(run(side)).lower(q, k, v).compile() for side in (ours, peer)}
    result = compare(length, *(lambda run=run: tuple(map(np.asarray, run(q, k, v))) for run in compiled.values()))
    memory = {name: run.memory_analysis() for name, run in compiled.items()}
    return result | {f"{name}_mib": (m.temp_size_in_bytes + m.output_size_in_bytes) / MIB for name, m in memory.items()}


def print_table(results: dict[str, list[Measured]], passes: str) -> None:
    print(f"block-sparse attention {passes}, {HEADS} x {HEAD_DIM}, block {BLOCK}, r {RANDOM}, batch 1, one thread")
    print("(memory: peak beyond the inputs, the output included)\n")
    print("framework  length  transformers ms  ours ms  ratio  transformers MiB  ours MiB  max abs difference")
    for framework, rows in results.items():
        for row in rows:
            print(
                f"{framework:9}  {row['length']:6}  {row['peer_ms']:15.1f}  {row['ours_ms']:7.1f}  "
                f"{row['peer_ms'] / row['ours_ms']:4.1f}x  {row['peer_mib']:16.1f}  {row['ours_mib']:8.1f}  "
                f"{row['max_abs_difference']:.1e}"
            )
        if len(rows) > 1:
            slope = np.polyfit(*(np.log([row[name] for row in rows]) for name in ("length", "ours_ms")), 1)[0]
            print(f"{framework}: time grows with length to the power {slope:.2f}")


if __name__ == "__main__":
    main()
