"""How often parity is red though nothing is wrong: clean random models, compared as ``bigbird-port parity`` does.

Every model is compared tap by tap, accumulated and local, in torch and in Flax against the float64 reference and
against each other; in one call; with its loss, its gradients (float32), and decoding.

    python -m benchmarks.false_alarms [--models 300] [--seed 0] [--dtype float32] [--workers 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

from benchmarks.random_models import OF_A_SHAPE, describe, draw_model
from bigbird_port.schema.table import weights_of
from parity.faults.setup import Setup
from parity.measure.rounding import FACTOR
from parity.run.conditions import Options, Pass
from parity.run.decoding import compare_decoding
from parity.run.gradients import compare_gradients
from parity.run.results import Condition, Result
from parity.run.walk import Walk
from parity.witnesses.witness import Dtype
from parity.witnesses.witness import make_witness as make

_MODELS_A_PROCESS = 4 * OF_A_SHAPE  # jax keeps what it compiled
_SHOWN = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="python -m benchmarks.false_alarms")
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16", "float64"), default="float32")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every model and what was red to this file")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.models)
    found = []
    for one in run(arguments.seed, numbers, arguments.dtype, arguments.workers):
        found.append(one)
        if arguments.json:
            arguments.json.write_text(json.dumps({"dtype": arguments.dtype, "models": found}, indent=1) + "\n")
        print(line(one), flush=True)
    print_table(arguments.dtype, found)
    raise SystemExit(any(one["red"] or one["refused"] for one in found))


def run(seed: int, numbers: range, dtype: str, workers: int = 1) -> Iterator[dict[str, Any]]:
    """Yield what was found of each model, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, max_tasks_per_child=_MODELS_A_PROCESS) as pool:
        yield from pool.map(judge, [seed] * len(numbers), numbers, [dtype] * len(numbers))


def judge(seed: int, index: int, dtype: str) -> dict[str, Any]:
    """Compare one model; return its figures, and its red rows."""
    model, start = draw_model(seed, index), time.perf_counter()
    setup = model.setup
    found: dict[str, Any] = {"model": index, "head": setup.head, **describe(model), "refused": ""}
    result = Result()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = compare(setup, dtype)
    except ValueError as error:
        found["refused"] = str(error)
    red = list(result.failures)
    worst = sorted(red, key=lambda row: -row.difference.excess)[:_SHOWN]
    return found | {
        "rows": len(result.rows),
        "red": len(red),
        "by_rounding": sum(row.tolerance.rounding > 0 for row in result.rows if row.passed),
        "before": dict(
            Counter(f"{row.error} {row.tolerance.key.partition('/')[0]}" for row in result.rows if row.tolerance.rounding)
        ),
        "ratio": max(((FACTOR * row.difference.excess, f"{row.value} {row.error} {row.place}") for row in result.rows if row.tolerance.rounding), default=(0.0, "")),
        "left_out": [what for names in result.not_compared.values() for what in names],
        "errors": dict(Counter(f"{row.error} {row.tolerance.key.partition('/')[0]}" for row in red)),
        "worst": [
            f"{row.value}/{row.reference} {row.error} {row.place}: {row.difference.problem or row.difference.excess}"
            for row in worst
        ],
        "seconds": round(time.perf_counter() - start, 2),
    }


def compare(setup: Setup, dtype: str) -> Result:
    """Compare one model as a parity run does."""
    import os
    names = tuple(os.environ.get("FA", "torch,flax").split(",")) + ("reference",)
    options = Options(witnesses=names, dtype=cast(Dtype, dtype), seed=setup.seed)
    settings = options.settings
    own = {row.name for row in weights_of(setup.config, setup.head, "flax")}  # torch carries some that the head has no use for
    weights = {name: x for name, x in setup.weights.items() if name in own}
    witnesses: dict[str, Any] = {"reference": make("reference", setup.config, setup.head, weights)}
    witnesses |= {x: make(x, setup.config, setup.head, setup.weights, settings[x]) for x in names[:-1]}
    B, L = setup.inputs["input_ids"].shape[0], setup.length
    condition = Condition(setup.name, B, L, f"seed {setup.seed}", dtype=dtype)
    result = Result(heads=[setup.head], conditions=[condition], witnesses=names)
    one = Pass(condition, setup.inputs, setup.config)
    walk = Walk(options, one, setup.head, setup.inputs, witnesses, result)
    walk.head(walk.layers())
    own = setup.config.family.heads[setup.head]
    if own.losses and dtype == "float32" and not (own.decodes and L == 1):
        result.rows += compare_gradients(walk.scene, witnesses, setup.config, setup.inputs, setup.seed)
    if own.decodes:
        result.rows += compare_decoding(walk.scene, witnesses, setup.inputs)
    return result


def line(one: dict[str, Any]) -> str:
    """A model in a line."""
    verdict = "refused" if one["refused"] else f"{one['red']} RED" if one["red"] else "green"
    sizes = "{model:4} {head}: {hidden_size} wide, {num_attention_heads} heads, {num_hidden_layers} layers, "
    sizes += "{hidden_act}, scale {scale:.3g}, {batch} x {length}"
    why = one["refused"] or "; ".join(one["worst"][:1])
    return f"{sizes.format(**one)}: {verdict} of {one['rows']} in {one['seconds']} s, {one['by_rounding']} by rounding, {one['ratio']} {why}".rstrip()


def print_table(dtype: str, found: list[dict[str, Any]]) -> None:
    """How many were red, and by what."""
    red = [one for one in found if one["red"] or one["refused"]]
    kinds = Counter(kind for one in found for kind in one["errors"])
    print(f"{dtype}: {len(red)} of {len(found)} clean models red, {sum(one['rows'] for one in found)} comparisons")
    print(f"models by what was left out of them: {sum(bool(one['left_out']) for one in found)}")
    for kind, count in kinds.most_common():
        print(f"  {kind}: red in {count}")


if __name__ == "__main__":
    main()
