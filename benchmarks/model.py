"""A whole base model, forward, on one padded batch of texts of mixed length: transformers' and ours."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import Measured, check_equal, times_in_turn
from benchmarks.pairs import SIDES, make_config, make_ids, model_run
from benchmarks.report import FRAMEWORKS, Row

TITLE = "base model (12 layers) forward, batch of mixed lengths"
LENGTHS = [4096, 2048, 900, 200]
CASES = [{"framework": name, "width": "base", "layers": 12, "lengths": LENGTHS} for name in FRAMEWORKS]
QUICK = [{"framework": name, "width": "tiny", "layers": 2, "lengths": [224, 100]} for name in FRAMEWORKS]
FASTER = 3.0  # goal: transformers' time over ours


def rows(results: Sequence[Measured]) -> list[Row]:
    """One row a framework."""
    made = []
    for result in results:
        name = (
            f"base model forward, batch of {', '.join(map(str, result['lengths']))}, {FRAMEWORKS[result['framework']]}"
        )
        goal = FASTER if result["lengths"] == LENGTHS else None
        made.append(Row(name, "s", result["peer_ms"] / 1e3, result["ours_ms"] / 1e3, goal))
    return made


def measure(framework: str, width: str, layers: int, lengths: list[int], repeats: int) -> list[Measured]:
    """Time one framework's pair; the outputs of real tokens are compared."""
    config = make_config(width, max(lengths), layers)
    ids, mask = make_ids(config, lengths)
    sides = {side: model_run(framework, side, config, ids, mask) for side in SIDES}
    real = mask.astype(bool)
    ours, peer = ([sides[side]()[real]] for side in ("ours", "peer"))
    difference = check_equal(f"{framework}, lengths {lengths}", ours, peer)
    case = {"framework": framework, "lengths": lengths}
    return [case | {"max_abs_difference": difference} | times_in_turn(sides, repeats, warm=False)]
