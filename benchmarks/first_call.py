"""The first call: from a new process to the first output of a base model, transformers' and ours in turn.

Wall time, of imports, from_pretrained, and the first forward (which JAX compiles first), files in the page cache. Peak
memory is the most that was resident at once, the interpreter included.
"""

from __future__ import annotations

import importlib
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.measure import Measured, check_equal, peak_mib, run_alone
from benchmarks.report import FRAMEWORKS, Row

TITLE = "first call: from a new process to the first output of a base model"
CASES = [{"framework": name, "width": "base", "layers": 12, "length": 1024} for name in FRAMEWORKS]
QUICK = [{"framework": name, "width": "tiny", "layers": 1, "length": 704} for name in FRAMEWORKS]
FASTER = 1.0  # goal: transformers' time over ours
PARTS = ("import_s", "load_s", "run_s")


def rows(results: Sequence[Measured]) -> list[Row]:
    """Time in whole and in parts, and memory."""
    made = []
    for result in results:
        name = f"first call, {result['length']}, {FRAMEWORKS[result['framework']]}"
        goal = FASTER if result["layers"] == 12 else None
        made.append(Row(name, "s", result["peer_s"], result["ours_s"], goal))
        for part in PARTS:
            what = f"{name}: {part.removesuffix('_s')}"
            made.append(Row(what, "s", result[f"peer_{part}"], result[f"ours_{part}"]))
        made.append(Row(f"{name}: peak", "MiB", result["peer_peak_mib"], result["ours_peak_mib"]))
    return made


def measure(framework: str, width: str, layers: int, length: int, repeats: int) -> list[Measured]:
    """Measure one framework; this process itself only compares."""
    result: Measured = {"framework": framework, "layers": layers, "length": length, "repeats": repeats}
    case = {"framework": framework, "length": length}
    runs: dict[str, list[Measured]] = {"peer": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        run_alone("benchmarks.first_call:write_model", width=width, layers=layers, folder=folder, **case)
        files = {side: f"{folder}/{side}.npy" for side in runs}
        for side, file in files.items():  # and brings the model's files into the page cache
            run_alone(_SIDE, side=side, folder=folder, output=file, **case)
        peer, ours = map(np.load, files.values())
        result["max_abs_difference"] = check_equal(f"{framework}, first call", [ours], [peer])
        for _ in range(repeats):
            for side, own in runs.items():
                own.append(run_alone(_SIDE, side=side, folder=folder, **case))
    for side, own in runs.items():
        result |= {f"{side}_{name}": statistics.median(run[name] for run in own) for name in own[0]}
    return [result]


_SIDE = "benchmarks.first_call:measure_side"


def write_model(framework: str, width: str, layers: int, length: int, folder: str) -> None:
    """Write the weights and configuration of a base model as a folder that both sides read."""
    from benchmarks.pairs import make_config  # which a first call does not find imported

    config = make_config(width, max(4096, length), layers)
    _model_class("ours", framework).from_config(config, 0).save_pretrained(folder)


def _model_class(side: str, framework: str) -> Any:
    module = importlib.import_module("transformers" if side == "peer" else f"models_{framework}")
    return getattr(module, {"torch": "BigBirdModel", "flax": "FlaxBigBirdModel"}[framework])


def measure_side(framework: str, side: str, length: int, folder: str, output: str | None = None) -> Measured:
    """Make one first call; with ``output`` write what transformers' random blocks give to that file, .npy."""
    changes = {"random_blocks": "transformers"} if output and side == "ours" else {}
    ids = 1 + np.arange(length)[None] % 199  # the tiny model's; 0 would be padding to ours alone
    first_output = {"torch": _first_torch, "flax": _first_flax}[framework]
    start = time.perf_counter()
    imported, loaded, hidden = first_output(side, folder, changes, ids)
    end = time.perf_counter()
    peak = peak_mib()
    if output:
        np.save(output, hidden)
    parts = {"import_s": imported - start, "load_s": loaded - imported, "run_s": end - loaded}
    return {"s": end - start, **parts, "cpu_s": time.process_time(), "peak_mib": peak}


def _first_torch(
    side: str, folder: str, changes: Mapping[str, str], ids: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Times when all is imported and loaded, and the output."""
    import torch

    torch.set_num_threads(1)
    model_class = _model_class(side, "torch")
    imported = time.perf_counter()
    model = model_class.from_pretrained(folder, **changes)
    loaded = time.perf_counter()
    with torch.no_grad():
        return imported, loaded, model(torch.from_numpy(ids)).last_hidden_state.numpy()


def _first_flax(side: str, folder: str, changes: Mapping[str, str], ids: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Times when all is imported and loaded, and the output."""
    import jax

    model_class = _model_class(side, "flax")
    imported = time.perf_counter()
    model = model_class.from_pretrained(folder, **changes)
    loaded = time.perf_counter()
    if side == "ours":  # compiles its layer itself, once for all
        return imported, loaded, np.asarray(model(ids).last_hidden_state)
    compiled = jax.jit(lambda params, ids: model(ids, params=params).last_hidden_state)  # faster than without
    return imported, loaded, np.asarray(compiled(model.params, ids))
