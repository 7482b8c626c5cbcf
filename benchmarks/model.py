"""A whole base model, forward, on one padded batch of texts of mixed length: transformers' and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.measure import Measured, compare_and_time
from benchmarks.pairs import Run, make_config, make_ids, model_run, with_their_blocks
from benchmarks.report import FRAMEWORKS, Row

TITLE = "base model (12 layers) forward, batch of mixed lengths"
LENGTHS = [200, 1499, 2797, 4096]
CASES = [{"framework": name, "width": "base", "layers": 12, "lengths": LENGTHS} for name in FRAMEWORKS]
QUICK = [{"framework": name, "width": "tiny", "layers": 1, "lengths": [704, 100]} for name in FRAMEWORKS]
FASTER = 3.0  # goal: transformers' time over ours
# Ours by framework: how a side is called, and what runs under jax.jit. transformers' Flax has one program for any mask.
SIDES = {
    "torch": {"ours": ("torch", "no")},
    "flax": {"ours": ("Flax, not under jit", "no"), "jitted": ("Flax, jitted for these lengths", "this mask")},
}


def rows(results: Sequence[Measured]) -> list[Row]:
    """One row for each of our sides."""
    made = []
    for result in results:
        goal = FASTER if result["lengths"] == LENGTHS else None
        for side, (name, _) in SIDES[result["framework"]].items():
            what = f"base model forward, batch of {', '.join(map(str, result['lengths']))}, {name}"
            made.append(Row(what, "s", result["peer_ms"] / 1e3, result[f"{side}_ms"] / 1e3, goal))
    return made


def measure(framework: str, width: str, layers: int, lengths: list[int], repeats: int) -> list[Measured]:
    """Time one framework's pair; the outputs of real tokens are compared."""
    config = make_config(width, max(lengths), layers)
    ids, mask = make_ids(config, lengths)
    real = mask.astype(bool)

    def of_real_tokens(run: Run) -> Callable[[], list[np.ndarray]]:
        return lambda: [run()[real]]

    peer = of_real_tokens(model_run(framework, "peer", config, ids, mask))
    compiled = {side: how for side, (_, how) in SIDES[framework].items()}
    equal = {
        side: of_real_tokens(model_run(framework, "ours", with_their_blocks(config), ids, mask, how))
        for side, how in compiled.items()
    }
    timed = {side: model_run(framework, "ours", config, ids, mask, how) for side, how in compiled.items()}
    for run in timed.values():
        run()  # compiles
    measured = compare_and_time(f"{framework}, lengths {lengths}", peer, equal, timed, repeats, warm=False)
    return [{"framework": framework, "lengths": lengths, **measured}]
