"""What training may differ by: measured by ``calibrate`` over seeds, as the other tolerances are, and kept in JSON.

An entry is the worst error of a kind over all steps, seeds and frameworks, divided by the root of the step's number:
the rounding errors of updates are independent, and their squares add up. A bound is that error times FACTOR, times the
root of the step's number.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bigbird_port.files.reading import read_text
from bigbird_port.files.writing import write_whole
from bigbird_port.schema.slots import RULES
from parity.measure.tolerances import Tolerance

COMMAND = "bigbird-port parity calibrate --training --out FILE"
SHIPPED = Path(__file__).parent / "tolerances.json"
FACTOR = 4.0
_WHY = "a quarter is left for seeds and sizes that were not measured, and other versions of the frameworks"


@dataclass(frozen=True)
class Entry:
    """The worst of a kind under one optimizer, divided by the root of the step's number. at: where."""

    optimizer: str
    kind: str
    worst: float
    samples: int
    at: str

    @property
    def key(self) -> str:
        """The entry's name."""
        return f"training/{self.optimizer}/{self.kind}"


def tolerance(optimizer: str, kind: str, step: int, table: Mapping[str, Entry] | None = None) -> Tolerance:
    """Return what a kind may differ by behind ``step`` updates, counted from 1."""
    found = (shipped() if table is None else table)[f"training/{optimizer}/{kind}"]
    reason = (
        f"{FACTOR:g} times the worst of {found.samples} ({found.at}), times the root of the number of updates: {_WHY}"
    )
    return Tolerance(found.worst * FACTOR * step**0.5, found.worst * step**0.5, FACTOR, reason, found.key)


@functools.cache
def shipped() -> dict[str, Entry]:
    """Return the table that comes with the package."""
    entries = json.loads(read_text(SHIPPED))["entries"]
    return {entry.key: entry for entry in (Entry(**values) for values in entries)}


def to_json(entries: Iterable[Entry], command: str) -> str:
    """Return the text of a table's file."""
    values = {"version": 1, "command": command, "entries": [asdict(entry) for entry in sorted(entries, key=_key)]}
    return json.dumps(values, indent=1) + "\n"


def _key(entry: Entry) -> str:
    return entry.key


def calibrate(
    runs: Sequence[tuple[str, int]],
    folder: Path,
    optimizers: Iterable[str] = tuple(RULES),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Entry]:
    """Measure the table on small models of every optimizer.

    runs: (framework, seed) pairs; to compile Flax's takes far longer than to run it. folder: for the models.
    """
    from parity.training.compare import errors
    from parity.training.made import HEAD, make_run
    from parity.training.run import TrainingOptions, taken

    worst: dict[str, Entry] = {}
    for optimizer in optimizers:
        for who, seed in runs:
            out = make_run(folder / f"{optimizer}-{who}-{seed}", optimizer, seed)
            options = TrainingOptions(seed=seed, who=("reference", who))
            for n, values in enumerate(taken(out, HEAD, options), 1):
                for kind, tap, error in errors(values[who], values["reference"], out):
                    _note(worst, Entry(optimizer, kind, error / n**0.5, 1, f"{who}, seed {seed}, step {n}: {tap}"))
            say(f"{optimizer}, {who}, seed {seed}")
    return worst


def write_table(path: Path, seeds: int, say: Callable[[str], None]) -> dict[str, Entry]:
    """Measure the shipped table anew, torch on so many seeds and Flax on the first, and write it to a file."""
    runs = [*(("torch", seed) for seed in range(seeds)), ("flax", 0)]
    with tempfile.TemporaryDirectory() as folder:
        table = calibrate(runs, Path(folder), say=say)
    write_whole(path, to_json(table.values(), COMMAND), "parity calibrate --out")
    return table


def joined(tables: Iterable[Mapping[str, Entry]]) -> dict[str, Entry]:
    """Return one table of several: the worst of each kind, and all samples."""
    found: dict[str, Entry] = {}
    for table in tables:
        for entry in table.values():
            _note(found, entry)
    return found


def _note(worst: dict[str, Entry], entry: Entry) -> None:
    former = worst.get(entry.key)
    count = entry.samples + (former.samples if former else 0)
    kept = entry if former is None or entry.worst > former.worst else former
    worst[entry.key] = replace(kept, samples=count)
