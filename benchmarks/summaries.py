"""Measure BigBird-Pegasus against transformers, one thread each: an encoder layer, and writing summaries.

    python -m benchmarks.summaries [--repeats N] [--quick] [--only encoder|greedy|beams] [--framework torch|flax]

Both sides have the same weights, and what they compute is compared before anything is timed: encoder states with
transformers' random blocks, and ids, which must be equal. There is no peer in Flax: its goal is torch's own time.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import Measured, check_equal, run_alone, times_in_turn
from benchmarks.report import FRAMEWORKS, Row, markdown_table, print_rows
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig

# "large": the released models; "base": the coupled ones' size, with their vocabulary.
SIZES: dict[str, dict[str, int]] = {
    "large": {"d_model": 1024, "ffn": 4096, "heads": 16, "layers": 1, "block_size": 64, "vocab_size": 1000},
    "base": {"d_model": 768, "ffn": 3072, "heads": 12, "layers": 12, "block_size": 64, "vocab_size": 50358},
    "tiny": {"d_model": 32, "ffn": 64, "heads": 2, "layers": 1, "block_size": 16, "vocab_size": 200},
}
CASES = {
    "encoder": {"size": "large", "length": 3072},
    "greedy": {"size": "base", "length": 256, "new": 128, "batch": 4, "beams": 1},
    "beams": {"size": "base", "length": 256, "new": 128, "batch": 1, "beams": 5},
}
QUICK = {
    "encoder": {"size": "tiny", "length": 704},
    "greedy": {"size": "tiny", "length": 32, "new": 4, "batch": 2, "beams": 1},
    "beams": {"size": "tiny", "length": 32, "new": 4, "batch": 1, "beams": 2},
}
# By what is measured: the goal of torch against transformers, and of Flax against torch.
GOALS = {"encoder": (1.5, 1 / 1.35), "greedy": (1.5, 1.0), "beams": (1.3, None)}


def rows(results: list[Measured]) -> list[Row]:
    """Times of torch against transformers', and of Flax against torch's."""
    made = []
    for what, (goal, other) in GOALS.items():
        found = {result["framework"]: result for result in results if result["what"] == what}
        if "torch" in found:
            torch = found["torch"]
            made.append(Row(f"{what}, torch", "ms", torch["peer_ms"], torch["ours_ms"], goal))
            if "fast_ms" in torch:
                made.append(Row(f"{what}, torch with fast_linears", "ms", torch["peer_ms"], torch["fast_ms"], goal))
        if {"torch", "flax"} <= found.keys():
            made.append(Row(f"{what}, Flax (against torch)", "ms", torch["ours_ms"], found["flax"]["ours_ms"], other))
    return made


def make_config(size: str, length: int, new: int = 1) -> BigBirdPegasusConfig:
    """The configuration of both sides: transformers' epsilon, and its random blocks."""
    sizes = dict(SIZES[size])
    names = {"layers": "layers", "attention_heads": "heads", "ffn_dim": "ffn"}
    own = {name: sizes.pop(key) for name, key in names.items()}
    both = {f"{side}_{name}": value for name, value in own.items() for side in ("encoder", "decoder")}
    places = max(length, new + 1)
    full = {} if new == 1 else {"attention_type": "original_full"}
    return BigBirdPegasusConfig(
        max_position_embeddings=places, layer_norm_eps=1e-5, random_blocks="transformers", **sizes, **both, **full
    )


def measure(what: str, framework: str, repeats: int, **case: Any) -> Measured:
    """Compare and time one case of one framework."""
    run = _encoder if what == "encoder" else _writing
    return {"what": what, "framework": framework, **run(framework, repeats, **case)}


def _encoder(framework: str, repeats: int, size: str, length: int) -> Measured:
    config = make_config(size, length)
    x = np.random.default_rng(0).integers(3, config.vocab_size, (1, length))
    equal, timed = _sides(framework, config), _sides(framework, config.replace(random_blocks="original"))

    def encoded(sides: dict[str, Any], side: str) -> Callable[[], np.ndarray]:
        return lambda: sides[side]["encode"](x)

    for side in equal.keys() - {"peer"}:
        if "peer" in equal:
            check_equal("encoder", [encoded(equal, side)()], [encoded(equal, "peer")()])
    for side in timed:
        encoded(timed, side)()
    return times_in_turn({side: encoded(timed, side) for side in timed}, repeats)


def _writing(framework: str, repeats: int, size: str, length: int, new: int, batch: int, beams: int) -> Measured:
    config = make_config(size, length, new)
    sides = _sides(framework, config)
    states = np.random.default_rng(1).standard_normal((batch, length, config.d_model), np.float32)
    found: dict[str, np.ndarray] = {}

    def run(side: str) -> Callable[[], None]:
        write = sides[side]["write"](states, new, beams)
        return lambda: found.update({side: write()})

    written = {side: run(side) for side in sides}
    if framework == "flax":
        written["ours"]()  # compiles
    times = times_in_turn(written, repeats, warm=False)
    if any(ids.tolist() != found["ours"].tolist() for ids in found.values()):
        raise SystemExit("the sides write other ids, so the times say nothing")
    return {"ids": int((found["ours"] != 0).sum()), **times}


def _sides(framework: str, config: BigBirdPegasusConfig) -> dict[str, dict[str, Any]]:
    return _of_torch(config) if framework == "torch" else _of_flax(config)


def _of_torch(config: BigBirdPegasusConfig) -> dict[str, dict[str, Any]]:
    import torch
    import transformers

    from models_torch.inference import fast_linears

    torch.set_num_threads(1)
    ours, peer_class = _torch_model(config), transformers.BigBirdPegasusForConditionalGeneration
    known = transformers.BigBirdPegasusConfig().to_dict().keys()
    values = {name: value for name, value in config.to_dict().items() if name in known and value is not None}
    with torch.device("meta"):
        peer: Any = peer_class(transformers.BigBirdPegasusConfig(**values))
    weights = dict(ours.state_dict())
    peer.load_state_dict(weights | {"final_logits_bias": torch.zeros(1, config.vocab_size)}, assign=True, strict=False)
    peer.tie_weights()
    peer = peer.eval()
    peer.model.encoder.to(torch.float32)

    def write_peer(states: np.ndarray, new: int, beams: int) -> Callable[[], np.ndarray]:
        output = transformers.modeling_outputs.BaseModelOutput(torch.from_numpy(states))
        options = {"max_new_tokens": new, "num_beams": beams, "do_sample": False}
        return lambda: peer.generate(encoder_outputs=output, **options)[:, 1:].numpy()

    def write(states: np.ndarray, new: int, beams: int) -> Callable[[], np.ndarray]:
        given = (torch.from_numpy(states),)
        options = {"max_new_tokens": new, "num_beams": beams, "beam_style": "transformers"}
        return lambda: ours.generate(encoder_outputs=given, **options).numpy()

    def encode(model: Any) -> Callable[[np.ndarray], np.ndarray]:
        def run(ids: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return np.asarray(model.model.encoder(torch.from_numpy(ids))[0])

        return run

    def fast(run: Callable[..., Any]) -> Callable[..., Any]:
        def within(*arguments: Any) -> Any:
            with fast_linears(ours):
                return run(*arguments)

        return within

    own = {"write": write, "encode": encode(ours)}

    def write_fast(*given: Any) -> Callable[[], np.ndarray]:
        return fast(write(*given))

    return {
        "peer": {"write": write_peer, "encode": encode(peer)},
        "ours": own,
        "fast": {"write": write_fast, "encode": fast(own["encode"])},
    }


@functools.cache
def _torch_model(config: BigBirdPegasusConfig) -> Any:
    from models_torch import BigBirdPegasusForConditionalGeneration

    return BigBirdPegasusForConditionalGeneration.from_config(config, 0).eval()


def _of_flax(config: BigBirdPegasusConfig) -> dict[str, dict[str, Any]]:
    import jax

    from models_flax import FlaxBigBirdPegasusForConditionalGeneration

    model = FlaxBigBirdPegasusForConditionalGeneration.from_config(config, 0)
    encode = jax.jit(lambda params, ids: model.encode(ids, params=params).last_hidden_state)

    def write(states: np.ndarray, new: int, beams: int) -> Callable[[], np.ndarray]:
        given = (jax.numpy.asarray(states),)
        options = {"max_new_tokens": new, "num_beams": beams, "beam_style": "transformers"}
        return lambda: np.asarray(model.generate(encoder_outputs=given, **options))

    return {"ours": {"write": write, "encode": lambda ids: np.asarray(encode(model.params, ids))}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="python -m benchmarks.summaries")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each side (3), whose median counts")
    parser.add_argument("--quick", action="store_true", help="tiny models, which show that it runs")
    parser.add_argument("--only", choices=list(CASES), help="one of the cases")
    parser.add_argument("--framework", choices=list(FRAMEWORKS), help="one of the frameworks")
    arguments = parser.parse_args()
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    cases = QUICK if arguments.quick else CASES
    results = [
        run_alone("benchmarks.summaries:measure", what=what, framework=framework, repeats=arguments.repeats, **case)
        for what, case in cases.items()
        for framework in FRAMEWORKS
        if arguments.only in (None, what) and arguments.framework in (None, framework)
    ]
    print_rows(rows(results))
    print(markdown_table(rows(results)))


if __name__ == "__main__":
    main()
