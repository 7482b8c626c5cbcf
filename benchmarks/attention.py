"""One block-sparse attention, forward and with its gradient: transformers' own and ours, time and memory.

Batch 1, float32. Memory is what is held at once beyond the inputs: as torch's profiler counts it, or as XLA plans it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.measure import MIB, Measured, compare_and_time
from benchmarks.pairs import make_config, peer_config, with_their_blocks
from benchmarks.report import FRAMEWORKS, Row
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import layer_pattern

TITLE = "block-sparse attention (12 heads x 64, block 64, 3 random blocks, batch 1)"
FORWARD_LENGTHS, BACKWARD_LENGTHS = [1024, 2048, 4096, 8192, 16384], [4096]
CASES = [
    {"framework": name, "width": "base", "forward": FORWARD_LENGTHS, "backward": BACKWARD_LENGTHS}
    for name in FRAMEWORKS
]
QUICK = [{"framework": name, "width": "tiny", "forward": [704], "backward": [704]} for name in FRAMEWORKS]
FORWARD, BACKWARD = "attention forward", "attention forward and backward"
FASTER = {"torch": {FORWARD: 4.0, BACKWARD: 2.0}, "flax": {FORWARD: 4.5, BACKWARD: 1.7}}
MEMORY = {"torch": {FORWARD: 32, BACKWARD: 200}, "flax": {FORWARD: 32, BACKWARD: 128}}


def rows(results: Sequence[Measured]) -> list[Row]:
    """Time and memory of every case; goals are for 4096 tokens, those of the forward's time for 16384 too."""
    made = []
    for result in results:
        framework, length = result["framework"], result["length"]
        passes = BACKWARD if result["backward"] else FORWARD
        name = f"{passes}, {length}, {FRAMEWORKS[framework]}"
        faster = FASTER[framework][passes] if length in (4096, 16384) else None
        memory = MEMORY[framework][passes] if length == 4096 else None
        kind = "temporaries" if framework == "flax" and not result["backward"] else "peak"
        made.append(Row(name, "ms", result["peer_ms"], result["ours_ms"], faster))
        made.append(
            Row(f"{name}: {kind}", "MiB", result[f"peer_{kind}_mib"], result[f"ours_{kind}_mib"], memory, "ours")
        )
    return made


def measure(framework: str, width: str, forward: list[int], backward: list[int], repeats: int) -> list[Measured]:
    """Measure these lengths of one framework, forward alone and with the gradients of queries, keys and values."""
    run, results = {"torch": _measure_torch, "flax": _measure_flax}[framework], []
    for length, passes in [*((length, False) for length in forward), *((length, True) for length in backward)]:
        case = {"framework": framework, "length": length, "backward": passes}
        results.append(case | run(make_config(width, length), length, passes, repeats))
    return results


def _draw(config: BigBirdConfig, length: int) -> list[np.ndarray]:
    """Queries, keys and values [1, N, L, H], and a gradient of the context [1, L, N, H]."""
    rng, N, H = np.random.default_rng(length), config.num_attention_heads, config.head_dim
    shapes = [*[(1, N, length, H)] * 3, (1, length, N, H)]
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def _measure_torch(config: BigBirdConfig, length: int, backward: bool, repeats: int) -> Measured:
    import torch

    torch.set_num_threads(1)
    *qkv, gradient = map(torch.from_numpy, _draw(config, length))
    for x in qkv:
        x.requires_grad_(backward)

    def bound(attention: Callable[..., Any]) -> Callable[[], tuple[Any, ...]]:
        def run() -> tuple[Any, ...]:
            with torch.set_grad_enabled(backward):
                context = attention(*qkv)
                return (context.detach(), *(torch.autograd.grad(context, qkv, gradient) if backward else ()))

        return run

    peer, ours = bound(_torch_peer(config, length)), bound(_torch_ours(config, length))
    equal = {"ours": bound(_torch_ours(with_their_blocks(config), length))}
    timed = compare_and_time(f"torch, {length} tokens", peer, equal, {"ours": ours}, repeats)
    return timed | {"peer_peak_mib": _torch_peak(peer) / MIB, "ours_peak_mib": _torch_peak(ours) / MIB}


def _torch_ours(config: BigBirdConfig, length: int) -> Callable[..., Any]:
    import torch

    from models_torch.attention.block_sparse import block_sparse_attention
    from models_torch.attention.lists import key_lists

    lists = key_lists(layer_pattern(config, 0, length), torch.device("cpu"))
    mask = torch.ones(1, length, dtype=torch.bool)
    return lambda q, k, v: block_sparse_attention(q, k, v, mask, lists, config.block_size)


def _torch_peer(config: BigBirdConfig, length: int) -> Callable[..., Any]:
    import torch
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

    W, N, H, r = config.block_size, config.num_attention_heads, config.head_dim, config.num_random_blocks
    module = BigBirdBlockSparseAttention(peer_config(config), seed=0).eval()
    ones = torch.ones(1, length)
    blocked, band, from_mask, to_mask = BigBirdModel.create_masks_for_block_sparse_attn(ones, W)
    masks, sizes = (band, from_mask, to_mask, blocked, blocked), (N, r, H, W, W, 1, length, length)
    attention = module.bigbird_block_sparse_attention
    return lambda q, k, v: attention(q, k, v, *masks, *sizes, 0, None, None, False)[0]


def _torch_peak(run: Callable[[], object]) -> int:
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


def _measure_flax(config: BigBirdConfig, length: int, backward: bool, repeats: int) -> Measured:
    import jax

    *qkv, gradient = map(jax.numpy.asarray, _draw(config, length))

    def compiled(attention: Callable[..., Any]) -> Any:
        def run(*qkv: Any) -> tuple[Any, ...]:
            if not backward:
                return (attention(*qkv),)
            context, vjp = jax.vjp(attention, *qkv)
            return (context, *vjp(gradient))

        return jax.jit(run).lower(*qkv).compile()

    def bound(program: Any) -> Callable[[], Any]:
        return lambda: jax.block_until_ready(program(*qkv))

    programs = {"peer": compiled(_flax_peer(config, length)), "ours": compiled(_flax_ours(config, length))}
    equal = {"ours": bound(compiled(_flax_ours(with_their_blocks(config), length)))}
    peer, ours = (bound(program) for program in programs.values())
    timed = compare_and_time(f"flax, {length} tokens", peer, equal, {"ours": ours}, repeats)
    for side, program in programs.items():
        memory = program.memory_analysis()
        timed[f"{side}_temporaries_mib"] = memory.temp_size_in_bytes / MIB
        timed[f"{side}_peak_mib"] = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / MIB
    return timed


def _flax_ours(config: BigBirdConfig, length: int) -> Callable[..., Any]:
    import jax

    from models_flax.attention.block_sparse import block_sparse_attention
    from models_flax.attention.lists import key_lists

    lists = key_lists(layer_pattern(config, 0, length))
    mask = jax.numpy.ones((1, length), bool)
    return lambda q, k, v: block_sparse_attention(q, k, v, mask, lists, config.block_size)


def _flax_peer(config: BigBirdConfig, length: int) -> Callable[..., Any]:
    import jax
    from transformers.models.big_bird.modeling_flax_big_bird import FlaxBigBirdBlockSparseAttention as Peer

    N, H = config.num_attention_heads, config.head_dim
    module = Peer(peer_config(config), block_sparse_seed=0)

    def attention(q: Any, k: Any, v: Any) -> Any:
        ones = jax.numpy.ones((1, length), "float32")
        blocked, band, from_mask, to_mask = Peer.create_masks_for_block_sparse_attn(ones, config.block_size)
        masks, method = (band, from_mask, to_mask, blocked, blocked), Peer.bigbird_block_sparse_attention
        context = module.apply({}, q, k, v, *masks, N, H, method=method)[0]
        return context.reshape(1, length, N, H)

    return attention
