"""How often parity is red though nothing is wrong: clean random models, compared as ``bigbird-port parity`` does.

Every model is compared tap by tap, accumulated and local, in torch and in Flax against the float64 reference and
against each other; in one call; with its loss, its gradients (float32 and float64), and decoding. The table counts the
models that are red, and those that the table of tolerances alone would have made red.

    python -m benchmarks.false_alarms [--models 300] [--seed 0] [--dtype float32] [--workers 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

from benchmarks.random_models import OF_A_SHAPE, describe, draw_model
from bigbird_port.schema.table import weights_of
from parity.faults.setup import Setup
from parity.measure.losses import why_no_loss
from parity.measure.rounding import FACTOR
from parity.run.asked import undecided
from parity.run.conditions import Options, Pass
from parity.run.decoding import compare_decoding
from parity.run.gradients import compare_gradients
from parity.run.results import Condition, Result, Row
from parity.run.walk import Walk
from parity.witnesses.with_flax import QUICK
from parity.witnesses.witness import Dtype, make_witness

FRAMEWORKS = ("torch", "flax")
_MODELS_A_PROCESS = 4 * OF_A_SHAPE  # jax keeps what it compiled
# Half of the time went into making programs fast that run once.
_QUICK_TO_COMPILE = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
_SHOWN = 5
Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="python -m benchmarks.false_alarms")
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16", "float64"), default="float32")
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="one of the two alone [default: both]")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every model and what was red to this file")
    arguments = parser.parse_args()
    os.environ.setdefault("XLA_FLAGS", _QUICK_TO_COMPILE)  # which the workers inherit
    numbers = range(arguments.first, arguments.first + arguments.models)
    found: list[Found] = []
    for one in run(arguments.seed, numbers, arguments.dtype, arguments.framework or FRAMEWORKS, arguments.workers):
        found.append(one)
        if arguments.json:
            record = {"seed": arguments.seed, "dtype": arguments.dtype, "models": found}
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
        print(line(one), flush=True)
    print_table(arguments.dtype, found)
    raise SystemExit(any(one["red"] or one["refused"] for one in found))


def run(seed: int, numbers: range, dtype: str, frameworks: Sequence[str], workers: int = 1) -> Iterator[Found]:
    """Yield what was found of each model, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, max_tasks_per_child=_MODELS_A_PROCESS) as pool:
        yield from pool.map(judge, *zip(*((seed, number, dtype, frameworks) for number in numbers), strict=True))


def judge(seed: int, index: int, dtype: str, frameworks: Sequence[str] = FRAMEWORKS) -> Found:
    """Compare one model; return its figures, what is red, and what is green only because of what rounding does."""
    model, start = draw_model(seed, index), time.perf_counter()
    result, refused = Result(), ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lengths for which the original has no plan
            result = compare(model.setup, dtype, frameworks)
    except ValueError as error:
        refused = str(error)
    red = sorted(result.failures, key=lambda row: -row.difference.excess)
    beyond = [row for row in result.rows if row.tolerance.rounding]
    worst = max(beyond, key=lambda row: row.difference.excess, default=None)
    return {
        "model": index,
        "head": model.setup.head,
        **describe(model),
        "refused": refused,
        "rows": len(result.rows),
        "red": len(red),
        "worst": [f"{_place(row)}: {row.difference.problem or row.difference.excess}" for row in red[:_SHOWN]],
        "beyond_table": dict(Counter(_kind(row) for row in (*beyond, *(row for row in red if row not in beyond)))),
        "most_noise": worst and [FACTOR * worst.difference.excess, _place(worst)],
        "left_out": [what for names in result.not_compared.values() for what in names],
        "seconds": round(time.perf_counter() - start, 2),
    }


def compare(setup: Setup, dtype: str, frameworks: Sequence[str] = FRAMEWORKS) -> Result:
    """Compare one model as a parity run does."""
    options = Options(witnesses=(*frameworks, "reference"), dtype=cast(Dtype, dtype), seed=setup.seed)
    # torch's classes carry some weights that the head has no use for
    used = {row.name: setup.weights[row.name] for row in weights_of(setup.config, setup.head, "flax")}
    witnesses: dict[str, Any] = {"reference": make_witness("reference", setup.config, setup.head, used)}
    for name in frameworks:
        witnesses[name] = make_witness(name, setup.config, setup.head, setup.weights, options.settings[name])
    B, L = setup.inputs["input_ids"].shape[0], setup.length
    condition = Condition(setup.name, B, L, f"seed {setup.seed}", dtype=dtype)
    result = Result(heads=[setup.head], conditions=[condition], witnesses=options.names)
    one = Pass(condition, setup.inputs, setup.config)
    walk = Walk(options, one, setup.head, setup.inputs, witnesses, result)
    walk.head(walk.layers())
    own = setup.config.family.heads[setup.head]
    if dtype in ("float32", "float64") and not why_no_loss(own, L):
        result.rows += compare_gradients(walk.scene, witnesses, setup.config, setup.inputs, setup.seed)
    if own.decodes:
        result.rows += compare_decoding(walk.scene, witnesses, setup.inputs)
    for head, what in undecided(result):
        result.leave_out(head, what)
    return result


def _kind(row: Row) -> str:
    return f"{row.error} {row.tolerance.key.partition('/')[0]}"


def _place(row: Row) -> str:
    return f"{row.value}/{row.reference} {row.error} {row.place}"


def line(one: Found) -> str:
    """A model in a line."""
    verdict = "refused" if one["refused"] else f"{one['red']} RED" if one["red"] else "green"
    sizes = "{model:4} {head}: {hidden_size} wide, {num_attention_heads} heads, {num_hidden_layers} layers, "
    sizes += "{hidden_act}, scale {scale:.3g}, {batch} x {length}"
    why = one["refused"] or "; ".join(one["worst"][:1])
    beyond = f"{sum(one['beyond_table'].values())} beyond the table"
    return f"{sizes.format(**one)}: {verdict} of {one['rows']}, {beyond}, {one['seconds']} s {why}".rstrip()


def print_table(dtype: str, found: list[Found]) -> None:
    """How many were red and would have been, and by what."""
    red = [one for one in found if one["red"] or one["refused"]]
    before = [one for one in found if one["beyond_table"] or one["refused"]]
    print(f"{dtype}: {len(red)} of {len(found)} clean models red, in {sum(one['rows'] for one in found)} comparisons")
    print(f"by the table of tolerances alone: {len(before)}, by kind of error and tap (models)")
    for kind, count in Counter(kind for one in found for kind in one["beyond_table"]).most_common():
        print(f"  {kind}: {count}")
    print(f"models of which something could not be decided: {sum(bool(one['left_out']) for one in found)}")
    if noisy := [one["most_noise"] for one in found if one["most_noise"]]:
        ratio, place = max(noisy)
        print(f"the largest error was {ratio:.2f} times the noise of rounding, {FACTOR:g} are allowed: {place}")


if __name__ == "__main__":
    main()
