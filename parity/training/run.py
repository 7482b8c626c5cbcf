"""One run of ``parity OUT --training``: all take the same steps, and are compared behind each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bigbird_port.conversion.manifest import MANIFEST
from bigbird_port.families.configuration import Configuration
from bigbird_port.families.registry import default_family
from bigbird_port.training.resuming import read_training
from parity.checks.integrity import Check, check_integrity
from parity.given.inputs import Inputs
from parity.measure.tolerances import Tolerance
from parity.run.results import ORIGINAL, Condition, Result, Row
from parity.training.batches import make_batches
from parity.training.compare import After, Compared, compared, known
from parity.training.golden import GoldenSteps
from parity.training.runs import WHO, Steps, kept_as
from parity.training.tolerances import Entry, tolerance

DERIVED = "derived, not measured: how far rounding can have moved what no loss depends on"


@dataclass(frozen=True)
class TrainingOptions:
    """What to run. length None: of the golden steps, or 64, or what the model allows. who: names of WHO."""

    steps: int = 8
    batch: int = 3
    length: int | None = None
    seed: int = 0
    who: tuple[str, ...] = ("reference", "torch", "flax")
    golden: GoldenSteps | None = None
    table: Mapping[str, Entry] | None = field(default=None, hash=False)


def run_training(out: Path, head: str | None, options: TrainingOptions) -> Result:
    """Take the steps and compare; raises ValueError for bad input."""
    if "reference" not in options.who or len(options.who) < 2:
        raise ValueError("--training compares with the reference: name it in --against, and a framework")
    resumed = read_training(out, kept_as(out), head)
    family = resumed.config.family
    if family is not default_family():
        raise ValueError(
            f"{out}: --training: there is no float64 reference of how {family.title} trains yet: leave --training out"
        )
    if options.golden:
        options.golden.check(resumed)
    names = (*(("golden",) if options.golden else ()), *options.who)
    result = Result(heads=[resumed.head], witnesses=names)
    if (out / MANIFEST).is_file():
        result.checks = check_integrity(out)
    of, first = known(out), resumed.state.global_step
    for n, values in enumerate(taken(out, resumed.head, options), 1):
        batch = batches_of(resumed.config, resumed.head, options)[n - 1]
        shape = batch["input_ids"].shape
        source = "golden steps" if options.golden else f"batches of seed {options.seed}"
        condition = Condition(f"step {first + n}", shape[0], shape[-1], f"{source}, update {n} from step {first}")
        result.conditions.append(condition)
        for name in options.who:
            if name != "reference":
                pairs = compared(values[name], values["reference"], of)
                result.rows += _rows(pairs, resumed.head, condition.name, (name, "reference"), of.optimizer, n, options)
            if options.golden:
                pairs = compared(values[name], options.golden.after(n, values[name].rates), of, partial=True)
                result.rows += _rows(pairs, resumed.head, condition.name, (name, ORIGINAL), of.optimizer, n, options)
    result.checks.append(Check("updates", len(result.conditions) == options.steps, f"{len(result.conditions)} taken"))
    return result


def batches_of(config: Configuration, head: str, options: TrainingOptions) -> Sequence[Inputs]:
    """Return the batch of every step."""
    if options.golden:
        return options.golden.batches(options.steps)
    length = options.length or min(64, config.max_position_embeddings)
    return make_batches(config, head, options.steps, options.batch, length, options.seed)


def taken(
    out: Path, head: str | None, options: TrainingOptions, runs: Mapping[str, Steps] | None = None
) -> Iterator[dict[str, After]]:
    """Yield what each run is behind each update, by its name. runs: in place of those that are loaded."""
    resumed = read_training(out, kept_as(out), head)
    found = {name: WHO[name](out, resumed.head) for name in options.who} | dict(runs or {})  # type: ignore[call-arg]
    rates = dict.fromkeys(found, 0.0)
    for batch in batches_of(resumed.config, resumed.head, options):
        values = {}
        for name, run in found.items():
            said = run.step(batch)
            rates[name] += said.rate
            values[name] = After(said, run.state(), rates[name])
        yield values


def _rows(
    pairs: Iterator[Compared],
    head: str,
    condition: str,
    names: tuple[str, str],
    optimizer: str,
    n: int,
    options: TrainingOptions,
) -> Iterator[Row]:
    for pair in pairs:
        allowed = allowed_for(pair, optimizer, n, options.table)
        shape = pair.sides[0].shape
        yield Row(head, condition, *names, "training", pair.tap, None, shape, allowed, pair.difference(allowed))


def allowed_for(pair: Compared, optimizer: str, n: int, table: Mapping[str, Entry] | None = None) -> Tolerance:
    """Return what a pair may differ by behind ``n`` updates."""
    if pair.kind:
        return tolerance(optimizer, pair.kind, n, table)
    return Tolerance(pair.bound, pair.bound, 1.0, DERIVED, "training/derived")
