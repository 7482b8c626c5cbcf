"""The gate that a mutant must turn red: a plain parity run, and the thorough one, in stages from cheap to dear.

A stage is a part of a run, on its own. What is red in a part is red in the whole.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.mutants.scope import Side

DEFAULT, THOROUGH = "default", "thorough"


@dataclass(frozen=True)
class Stage:
    """A part of the gate. name: for people. level: "default" or "thorough". run: says what is red, or nothing."""

    name: str
    level: str
    run: Callable[[], str]


def stages(into: Side) -> Iterator[Stage]:
    """Yield the stages of a framework's gate: each head's walk, the original, then every condition."""
    from bigbird_port.families.registry import default_family
    from parity.conditions import table

    for head in default_family().heads:
        yield Stage(head, DEFAULT, functools.partial(_compare, into, head))
    yield Stage("the original", DEFAULT, functools.partial(_original, into))
    for name in table.THOROUGH:
        level = DEFAULT if name in table.PLAIN else THOROUGH
        yield Stage(name, level, functools.partial(_condition, into, name))


def _compare(into: Side, head: str) -> str:
    """Run parity of a head on the demo; return the first thing that is red, empty where nothing is."""
    from parity.run.run import run_parity

    return _red(run_parity(_demo(), (head,), _options(into)))


def _original(into: Side) -> str:
    """Hold the demo against outputs of the original."""
    from parity.checks.build import check_build

    return next((check.name for check in check_build(_demo(), _options(into)) if not check.passed), "")


def _condition(into: Side, name: str) -> str:
    """Run one condition on the demo, for all heads that it is for."""
    from bigbird_port.families.registry import default_family
    from parity.checks.drawn import check_drawn
    from parity.conditions.run import run_conditions
    from parity.run.results import Result

    heads, options = list(default_family().heads), _options(into, conditions=(name,))
    result = Result(heads=heads, witnesses=options.names)
    drawn = check_drawn(run_conditions(_demo(), _demo(), heads, options, result))
    return next((f"{row.error} {row.place}" for row in result.failures), "" if drawn.passed else f"check {drawn.name}")


def _options(into: Side, **options: Any) -> Any:
    from parity.run.conditions import Options

    return Options(witnesses=(into, "reference"), **options)


def _red(result: Any) -> str:
    if result.passed:
        return ""
    red = next((f"{row.error} {row.place}" for row in result.failures), "")
    checks = (f"check {check.name}" for check in result.checks if not check.passed)
    return red or next(checks, "") or "nothing was compared"


@functools.cache
def _demo() -> Path:
    """The checkpoint that is shipped, converted by the code that is to be judged; in the process's own folder."""
    import bigbird_port
    from bigbird_port.conversion.convert import convert

    out = Path(tempfile.mkdtemp()) / "demo"
    convert(Path(bigbird_port.__file__).parent / "demo_checkpoint", out)
    return out
