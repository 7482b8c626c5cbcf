"""The tables of docs/conditions.md are those of the code. ``python -m tests.parity.conditions.test_conditions_doc``."""

from collections.abc import Iterator

from parity.conditions.condition import decoding, every_head, texts_head, trained_head, with_loss
from parity.conditions.table import CONDITIONS, PLAIN
from tests.conftest import ROOT
from tests.parity.conditions.test_conditions import CAUGHT, HEAVY

PAGE = ROOT / "docs/conditions.md"
RUNS_ON = {
    texts_head: "one head",
    trained_head: "one head",
    with_loss: "every head with a loss",
    decoding: "heads that decode",
    every_head: "every head",
}


def tables() -> Iterator[list[str]]:
    """Yield the lines of each table."""
    for plain in (True, False):
        yield [
            f"| `{one.name}`: {one.purpose} | {RUNS_ON[one.heads]} | {one.kills} |"
            for one in CONDITIONS
            if (one.name in PLAIN) == plain
        ]
    yield [f"| {fault.replace('_', ' ')} | `{condition}` |" for fault, (condition, *_) in (CAUGHT | HEAVY).items()]


def test_the_page_has_the_tables():
    text = PAGE.read_text()
    for lines in tables():
        assert lines
        assert "\n".join(lines) in text


if __name__ == "__main__":
    print("\n\n".join("\n".join(lines) for lines in tables()))  # noqa: T201
