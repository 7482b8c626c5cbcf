"""One encoder layer, forward, batch 1: transformers' and ours, and beside both the floor that this processor sets.

The floor is the layer's floating-point operations at the rate of a matrix product of the layer's own shape, measured
in the same turns: MKL's, through torch.mm; and the best of MKL's, oneDNN's (with a weight that it laid out) and XLA's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.measure import Measured, compare_and_time
from benchmarks.pairs import make_config, peer_config, with_their_blocks
from benchmarks.report import FRAMEWORKS, Row
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import layer_pattern

TITLE = "encoder layer of the base model, forward, batch 1"
CASES = [{"framework": name, "width": "base", "lengths": [1024, 4096]} for name in FRAMEWORKS]
QUICK = [{"framework": name, "width": "tiny", "lengths": [704]} for name in FRAMEWORKS]
# Sides of ours by framework: what it is called, the goal against transformers, that against a floor, and which floor.
GOALS: dict[str, dict[str, tuple[str, float, float, str]]] = {
    "torch": {
        "ours": ("torch", 1.5, 1.15, "MKL's"),
        "fast": ("torch with fast_linears", 2.5, 1.35, "the best"),
    },
    "flax": {"ours": ("Flax", 2.0, 1.25, "the best")},
}


def rows(results: Sequence[Measured]) -> list[Row]:
    """Times against transformers', and as multiples of a floor; goals are for 4096 tokens."""
    made = []
    for result in results:
        length, peer = result["length"], result["peer_ms"]
        own = result["gflops_each_second"]
        best = max(
            rate for other in results if other["length"] == length for rate in other["gflops_each_second"].values()
        )
        for side, (name, faster, near, which) in GOALS[result["framework"]].items():
            ours, floor = result[f"{side}_ms"], 1e3 * result["gflop"] / (own["mkl"] if which == "MKL's" else best)
            what, goals = f"encoder layer forward, {length}, {name}", length == 4096
            over = f"{what}: over {which} floor of {floor:.0f} ms"
            made.append(Row(what, "ms", peer, ours, faster if goals else None))
            made.append(Row(over, "times", peer / floor, ours / floor, near if goals else None, "ours"))
    return made


def measure(framework: str, width: str, lengths: list[int], repeats: int) -> list[Measured]:
    """Measure these lengths of one framework."""
    run, results = {"torch": _measure_torch, "flax": _measure_flax}[framework], []
    for length in lengths:
        config = make_config(width, length)
        measured = run(config, length, repeats)
        rates = {
            name: _product_gflop(config, length) / (1e-3 * measured[f"{name}_ms"]) for name in _PRODUCTS[framework]
        }
        case = {"framework": framework, "length": length, "gflop": _layer_gflop(config, length)}
        results.append(case | {"gflops_each_second": rates} | measured)
    return results


_PRODUCTS = {"torch": ("mkl", "onednn"), "flax": ("xla",)}


def _layer_gflop(config: BigBirdConfig, length: int) -> float:
    """What a layer's products take: linear layers; scores and contexts of the pairs of blocks that attend.

    A key block that stands twice in a list counts once: it needs no second product.
    """
    D, W, n = config.hidden_size, config.block_size, length // config.block_size
    pattern = layer_pattern(config, 0, length)
    assert pattern is not None  # a length with block-sparse attention
    blocks = np.sort(np.where(pattern.live, pattern.key_blocks, -1), axis=-1)
    listed = int((blocks[..., 0] >= 0).sum() + ((np.diff(blocks) > 0) & (blocks[..., 1:] >= 0)).sum())
    pairs = listed + 2 * n * config.num_attention_heads
    return 1e-9 * (2 * length * D * (4 * D + 2 * config.intermediate_size) + 4 * pairs * W * W * config.head_dim)


def _product_gflop(config: BigBirdConfig, length: int) -> float:
    """What the product of the widening linear layer takes."""
    return 2e-9 * length * config.hidden_size * config.intermediate_size


def _draw(config: BigBirdConfig, length: int) -> list[np.ndarray]:
    """Hidden states [1, L, D], and operands of the product: x [L, D], a weight [I, D]."""
    D, inner = config.hidden_size, config.intermediate_size
    rng = np.random.default_rng(length)
    return [rng.standard_normal(shape, np.float32) for shape in ((1, length, D), (length, D), (inner, D))]


def _measure_torch(config: BigBirdConfig, length: int, repeats: int) -> Measured:
    import torch
    from transformers.models.big_bird.modeling_big_bird import BigBirdLayer as PeerLayer
    from transformers.models.big_bird.modeling_big_bird import BigBirdModel

    from models_torch.bigbird.encoder import encoder_lists
    from models_torch.bigbird.layer import BigBirdLayer
    from models_torch.inference import fast_linears

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer, fast = BigBirdLayer(config).eval(), BigBirdLayer(config).eval()
    peer = PeerLayer(peer_config(config), seed=0).eval()
    for same in (fast, peer):
        same.load_state_dict(layer.state_dict())
    x_BLD, x_LD, weight = map(torch.from_numpy, _draw(config, length))
    mask = torch.ones(1, length, dtype=torch.bool)
    lists, same_lists = (encoder_lists(c, 0, length, x_BLD.device) for c in (config, with_their_blocks(config)))
    blocked, band, from_mask, to_mask = BigBirdModel.create_masks_for_block_sparse_attn(mask.float(), config.block_size)
    masks = {"band_mask": band, "from_mask": from_mask, "to_mask": to_mask, "blocked_encoder_mask": blocked}
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    equal = {
        "ours": lambda: [layer(x_BLD, mask, same_lists)[0]],
        "fast": lambda: [fast(x_BLD, mask, same_lists)[0]],
    }
    timed = {
        "ours": lambda: layer(x_BLD, mask, lists),
        "fast": lambda: fast(x_BLD, mask, lists),
        "mkl": lambda: torch.mm(x_LD, weight.T),
        "onednn": lambda: torch.ops.mkldnn._linear_pointwise(x_LD, packed, None, "none", [], ""),
    }
    with torch.no_grad(), fast_linears(fast):
        return compare_and_time(f"torch, {length} tokens", lambda: [peer(x_BLD, **masks)[0]], equal, timed, repeats)


def _measure_flax(config: BigBirdConfig, length: int, repeats: int) -> Measured:
    import jax
    from transformers.models.big_bird.modeling_flax_big_bird import FlaxBigBirdLayer as PeerLayer

    from models_flax.bigbird.encoder import encoder_lists
    from models_flax.bigbird.layer import BigBirdLayer
    from models_flax.kinds import layer_kinds

    x_BLD, x_LD, weight = map(jax.numpy.asarray, _draw(config, length))
    layer: Any = layer_kinds(BigBirdLayer).bare(config)  # what a model runs where no taps are asked for
    peer = PeerLayer(peer_config(config), layer_id=0)
    mask = jax.numpy.ones((1, length), bool)
    lists, same_lists = (encoder_lists(c, 0, length) for c in (config, with_their_blocks(config)))
    params = layer.init(jax.random.key(0), x_BLD, mask, lists)

    def compiled(run: Callable[..., Any], *arrays: Any) -> Callable[[], Any]:
        program = jax.jit(run).lower(*arrays).compile()
        return lambda: [jax.block_until_ready(program(*arrays))]

    their_mask = mask.astype("int32")
    theirs = compiled(lambda params, x: peer.apply(params, x, their_mask, None)[0], params, x_BLD)
    equal = {"ours": compiled(lambda params, x: layer.apply(params, x, mask, same_lists)[0], params, x_BLD)}
    timed = {
        "ours": compiled(lambda params, x: layer.apply(params, x, mask, lists)[0], params, x_BLD),
        "xla": compiled(lambda x, kernel: x @ kernel, x_LD, jax.numpy.asarray(weight.T)),
    }
    return compare_and_time(f"flax, {length} tokens", theirs, equal, timed, repeats)
