"""docs/versions.md: which releases were run together, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from bigbird_port.installed import STACK
from tests.conftest import ROOT
from tests.versions.matrix import TESTS
from tests.versions.run import Outcome

PAGE = ROOT / "docs/versions.md"
HEAD = """# Versions

`make test-versions` installs each of these stacks into an environment of its own, runs a part of the tests there, and
writes this page. The oldest stack has the lowest releases that `pyproject.toml` allows and that install together. The
newest has the newest on the registry. `make test` runs all tests with the releases of `constraints.txt`.
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """Return the page of these outcomes."""
    head = ["| |" + "|".join(f" {outcome.name} " for outcome in outcomes) + "|", "|---|" + "---|" * len(outcomes)]
    rows = [row(name, [outcome.versions[name] for outcome in outcomes]) for name in STACK]
    rows += [row(f"tests {kind}", [str(o.counts[kind]) for o in outcomes]) for kind in ("passed", "failed", "skipped")]
    ran = "The tests are " + ", ".join(f"`{name}`" for name in TESTS) + ", without the slow ones."
    failed = [f"* {outcome.name}: `{name}`" for outcome in outcomes for name in outcome.failures]
    parts = [HEAD, "\n".join([*head, *rows]), ran, *(["Failed:\n\n" + "\n".join(failed)] if failed else [])]
    return parts[0] + "\n" + "\n\n".join(parts[1:]) + "\n"


def row(name: str, cells: Sequence[str]) -> str:
    """One row of the table."""
    return f"| {name} | {' | '.join(cells)} |"
