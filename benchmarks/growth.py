"""Growth from 4096 to 65536 tokens: a two-layer base encoder forward, every length and side in a new process.

Memory is the most that is resident at once beyond the interpreter with its frameworks, and beyond the weights. The
random blocks of the original's plan are drawn by NumPy in a length's first call: that is timed beside it, for a layer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.measure import (
    Measured,
    check_equal,
    forget_peak,
    peak_mib,
    resident_mib,
    run_alone,
    times_in_turn,
)
from benchmarks.pairs import SIDES, import_models, make_config, make_ids, model_run, with_their_blocks
from benchmarks.report import FRAMEWORKS, Row

TITLE = "growth: embeddings and two layers of the base model, forward, batch 1"
LENGTHS = [4096, 8192, 16384, 32768, 65536]
CASES = [{"framework": name, "width": "base", "lengths": LENGTHS} for name in FRAMEWORKS]
QUICK = [{"framework": name, "width": "tiny", "lengths": [640, 1280]} for name in FRAMEWORKS]
LARGEST_EXPONENT, MOST_MIB = 1.05, 4096


def rows(results: Sequence[Measured]) -> list[Row]:
    """Figures at every length, and each framework's exponents."""
    made = []
    for framework in FRAMEWORKS:
        own = [result for result in results if result["framework"] == framework]
        for result in own:
            name = f"2-layer encoder forward, {result['length']}, {FRAMEWORKS[framework]}"
            most = MOST_MIB if result["length"] == LENGTHS[-1] else None
            made.append(Row(name, "s", result["peer_ms"] / 1e3, result["ours_ms"] / 1e3))
            made.append(Row(f"{name}: peak", "MiB", result["peer_peak_mib"], result["ours_peak_mib"], most, "ours"))
        for unit, name in (("ms", "time"), ("activations_mib", "memory beyond the weights")):
            peer, ours = (exponent(own, f"{side}_{unit}") for side in SIDES)
            goal = LARGEST_EXPONENT if own[-1]["length"] == LENGTHS[-1] else None
            made.append(Row(f"growth of {name}, {FRAMEWORKS[framework]}", "exponent", peer, ours, goal, "ours"))
    longest = max(results, key=lambda result: result["length"])
    made.append(Row(f"random blocks of a layer drawn, {longest['length']}", "ms", None, longest["drawing_ms"]))
    return made


def exponent(results: Sequence[Measured], name: str) -> float:
    """The power of the length with which a figure grows: a straight line through the logarithms."""
    lengths, values = (np.log([result[key] for result in results]) for key in ("length", name))
    return float(np.polyfit(lengths, values, 1)[0])


def measure(framework: str, width: str, lengths: list[int], repeats: int) -> list[Measured]:
    """Measure these lengths of one framework; this process itself only compares."""
    results = []
    for length in lengths:
        case = {"framework": framework, "width": width, "length": length}
        with tempfile.TemporaryDirectory() as folder:
            files = {side: f"{folder}/{side}.npy" for side in ("ours", "peer")}
            # transformers' curve has no goal, and takes minutes
            sides = {"peer": run_alone(_SIDE, side="peer", repeats=1, output=files["peer"], **case)}
            run_alone("benchmarks.growth:write_ours", output=files["ours"], **case)
            ours, peer = (np.array_split(np.load(file, mmap_mode="r")[0], 16) for file in files.values())
            difference = check_equal(f"{framework}, {length} tokens", ours, peer)
        sides["ours"] = run_alone(_SIDE, side="ours", repeats=repeats, **case)
        result: Measured = {"framework": framework, "length": length, "max_abs_difference": difference}
        for side, measured in sides.items():
            result |= {f"{side}_{name}": value for name, value in measured.items()}
        results.append(result | {"drawing_ms": _drawing_ms(width, length)})
    return results


_PAGE_MIB = 4 / 1024  # less does not show
_SIDE = "benchmarks.growth:measure_side"


def write_ours(framework: str, width: str, length: int, output: str) -> None:
    """Write what our side computes with transformers' random blocks to a file, .npy."""
    config = with_their_blocks(make_config(width, length, layers=2))
    np.save(output, model_run(framework, "ours", config, *make_ids(config, (length,)))())


def measure_side(
    framework: str, side: str, width: str, length: int, repeats: int, output: str | None = None
) -> Measured:
    """Measure time and memory of one side; with ``output`` write what it computes to that file, .npy."""
    import_models(framework, side)
    interpreter = resident_mib()
    config = make_config(width, length, layers=2)
    run = model_run(framework, side, config, *make_ids(config, (length,)))
    weights = resident_mib()
    forget_peak()  # making the weights took more
    hidden = run()
    if output:
        np.save(output, hidden)
    del hidden
    timed = times_in_turn({"": run}, repeats, warm=False)
    peak = peak_mib()
    beyond = {"peak_mib": interpreter, "activations_mib": weights}
    memory = {name: max(peak - below, _PAGE_MIB) for name, below in beyond.items()}
    return {"ms": timed["_ms"], "repeats": timed["repeats"], "interpreter_mib": interpreter, **memory}


def _drawing_ms(width: str, length: int) -> float:
    """Milliseconds to draw the random blocks of one layer by the original's plan."""
    from bigbird_port.sparse.pattern import layer_pattern

    config = make_config(width, length)
    layer_pattern(config, 0, length)  # finds out whether there is a plan
    start = time.process_time()
    layer_pattern(config, 1, length)
    return 1e3 * (time.process_time() - start)
