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
    """Yield the stages of a framework's gate, those of a plain run first."""
    from bigbird_port.families.registry import default_family

    heads = list(default_family().heads)
    for head in heads:
        yield Stage(f"{head}", DEFAULT, functools.partial(_compare, into, head))
    for head in heads:
        own = default_family().heads[head]
        if not own.no_loss:
            name = f"{head}, gradients{' and decoding' if own.decodes else ''}, 80 tokens"
            options = {"length": 80, "gradients": True, "decoding": own.decodes}
            yield Stage(name, THOROUGH, functools.partial(_compare, into, head, **options))
    for head in (heads[0], *(head for head in heads if default_family().heads[head].decodes)):
        # the encoder is the same in the others, and each takes as long as all the rest
        options = {"length": 80, "adversarial": True}
        yield Stage(f"{head}, adversarial, 80 tokens", THOROUGH, functools.partial(_compare, into, head, **options))


def _compare(into: Side, head: str, **options: Any) -> str:
    """Run parity of a head on the demo; return the first thing that is red, empty where nothing is."""
    from parity.run.conditions import Options
    from parity.run.run import run_parity

    result = run_parity(_demo(), (head,), Options(witnesses=(into, "reference"), **options))
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
