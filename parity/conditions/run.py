"""Runs conditions: each on the heads that it is for, and what it finds goes into the result of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bigbird_port.families.registry import default_family
from bigbird_port.models.folder import read_folder_config
from parity.checks.drawn import Drawn
from parity.conditions.bench import TRUTH, Bench, Shelf
from parity.conditions.condition import UserCondition
from parity.conditions.table import CONDITIONS
from parity.given.inputs import default_length
from parity.run.conditions import Options
from parity.run.results import Condition, Result
from parity.users.user import USERS

_JUDGED = ("float32", "float64")


def run_conditions(out: Path, reads: Path, heads: Sequence[str], options: Options, result: Result) -> list[Drawn]:
    """Run the conditions that the options name, and return the patterns that they had.

    reads: the folder that the reference reads.
    A condition that raises is a failed row, because to raise is not to do what the reference does.
    """
    shelf = Shelf(out, reads, options)
    config = read_folder_config(out, "torch").replace(**options.overrides)
    own = dict(options.overrides) | {"max_encoder_length": config.max_encoder_length or default_length(config)}
    config, patterns = config.replace(**own), list[Drawn]()
    if options.conditions and config.family is not default_family():
        for head in heads:
            result.leave_out(head, f"conditions (they are ways to call {default_family().title} models)")
        return patterns
    for one in chosen(options.conditions):
        able = one.heads(config.family, heads)
        if why := why_none(options) or one.why_not(config):
            for head in able:
                result.leave_out(head, f"{one.name} ({why})")
            continue
        benches = [Bench(shelf, one.name, head, own | one.overrides(config)) for head in able]
        for bench in benches:
            _run(one, bench, result)
        if benches:
            result.conditions.append(_condition(one, benches, options))
            patterns += [Drawn(bench.config, bench.config.max_encoder_length) for bench in benches]
    return patterns


def chosen(names: Sequence[str]) -> list[UserCondition]:
    """Return the conditions of these names, in the order of the list; raises ValueError for an unknown name."""
    known = [one.name for one in CONDITIONS]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"there is no condition {', '.join(unknown)}: choose some of {', '.join(known)}")
    return [one for one in CONDITIONS if one.name in names]


def why_none(options: Options) -> str:
    """Say why no condition can run with these options; empty where they can."""
    if TRUTH not in options.names or not set(USERS) & set(options.names):
        return f"a condition compares {' or '.join(USERS)} with the {TRUTH}"
    return "" if options.dtype in _JUDGED else f"conditions are judged in {' and '.join(_JUDGED)}"


def _run(one: UserCondition, bench: Bench, result: Result) -> None:
    try:
        result.rows += one.run(bench)
    except Exception as error:  # whatever code raises that the reference does not
        problem = f"raised {type(error).__name__}: {error}"
        pair = (bench.users[0].name, TRUTH)
        result.rows.append(
            bench.scene({"input_ids": np.zeros((1, 1), np.int32)}).failed(pair, "called", one.name, problem)
        )


def _condition(one: UserCondition, benches: list[Bench], options: Options) -> Condition:
    bench, settings = benches[0], options.settings
    return Condition(
        name=one.name,
        batch=bench.batch,
        length=bench.length,
        inputs=f"{bench.batch} x {bench.length} tokens (seed {options.seed})",
        dtype=options.dtype,
        torch_device=settings["torch"].device if "torch" in settings else "",
        flax_device=settings["flax"].device if "flax" in settings else "",
        overrides={name: x for name, x in bench.overrides.items() if name not in options.overrides},
        purpose=one.purpose,
        heads=tuple(own.head for own in benches),
    )
