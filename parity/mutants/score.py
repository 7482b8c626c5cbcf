"""What became of each mutant, and the score: how many of those that change anything the gate catches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from parity.mutants.gate import DEFAULT, THOROUGH
from parity.mutants.generate import Mutant

Verdict = Literal["caught", "raises", "timeout", "survived", "equivalent", "rounding", "not run"]
CAUGHT: tuple[Verdict, ...] = ("caught", "raises", "timeout")


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant.

    verdict: "caught" where a comparison was red, "raises" where the mutant raised or crashed, "timeout" where it took
    too long, "survived" where the gate stayed green though a probe returned something else, "equivalent" where all
    probes returned the same, "rounding" where they did but for rounding, "not run" where no stage and no probe runs
    its line. level, stage: of the gate, where it was caught. detail: what was red, or raised. seen_by: the first probe
    that returned something else, and what.
    """

    mutant: Mutant
    verdict: Verdict
    level: str = ""
    stage: str = ""
    detail: str = ""
    seen_by: Mapping[str, str] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """The outcome as plain data."""
        return {"mutant": self.mutant.name, **asdict(self.mutant)} | {
            name: getattr(self, name) for name in ("verdict", "level", "stage", "detail", "seen_by")
        }


@dataclass(frozen=True)
class Counts:
    """How many mutants of a file, or of all: by default caught, by --thorough, never; and what does not count."""

    default: int
    thorough: int
    survived: int
    raises: int
    timeouts: int
    same: int
    not_run: int

    @property
    def changing(self) -> int:
        """Those that change what is computed."""
        return self.default + self.thorough + self.survived

    @property
    def score(self) -> float | None:
        """The share of those that a plain run catches; None where there are none."""
        return self.default / self.changing if self.changing else None

    @property
    def thorough_score(self) -> float | None:
        """The share of those that --thorough catches."""
        return (self.default + self.thorough) / self.changing if self.changing else None


@dataclass
class Score:
    """A run over mutants. into: the side. of: how many there are. left: how many were to be run and were not.

    seconds: by stage, of the code as it is. covered: by file, the share of lines that the gate runs: by default, with
    --thorough.
    """

    into: str
    of: int = 0
    seed: int = 0
    left: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    covered: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        """All together."""
        return count(self.outcomes)

    @property
    def survivors(self) -> list[Outcome]:
        """Those that change what is computed and that nothing caught, in the order of the code."""
        found = [outcome for outcome in self.outcomes if outcome.verdict == "survived"]
        return sorted(found, key=lambda outcome: (outcome.mutant.file, outcome.mutant.start))

    def by_file(self) -> dict[str, Counts]:
        """Counts of each file."""
        files = sorted({outcome.mutant.file for outcome in self.outcomes})
        return {file: count([x for x in self.outcomes if x.mutant.file == file]) for file in files}

    def by_line(self) -> dict[str, Counts]:
        """Counts of each line, ``file:line``, that has a mutant which was not caught by default."""
        lines: dict[tuple[str, int], list[Outcome]] = {}
        for outcome in self.outcomes:
            lines.setdefault((outcome.mutant.file, outcome.mutant.lines[0]), []).append(outcome)
        counts = {f"{file}:{line}": count(outcomes) for (file, line), outcomes in sorted(lines.items())}
        return {place: found for place, found in counts.items() if found.thorough or found.survived}

    def to_json(self) -> dict[str, Any]:
        """The score as plain data."""
        total = self.total
        return {
            "mutants_of": self.into,
            "mutants": self.of,
            "seed": self.seed,
            "run": len(self.outcomes),
            "left": self.left,
            "total": _row(total),
            "files": {file: _row(counts) for file, counts in self.by_file().items()},
            "lines": {place: _row(counts) for place, counts in self.by_line().items()},
            "seconds": self.seconds,
            "covered": self.covered,
            "outcomes": [outcome.to_row() for outcome in self.outcomes],
        }


def count(outcomes: Sequence[Outcome]) -> Counts:
    """Count outcomes."""
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    levels = Counter(outcome.level for outcome in outcomes if outcome.verdict in CAUGHT)
    return Counts(
        default=levels[DEFAULT],
        thorough=levels[THOROUGH],
        survived=verdicts["survived"],
        raises=verdicts["raises"],
        timeouts=verdicts["timeout"],
        same=verdicts["equivalent"] + verdicts["rounding"],
        not_run=verdicts["not run"],
    )


def _row(counts: Counts) -> dict[str, Any]:
    return asdict(counts) | {"score": counts.score, "thorough_score": counts.thorough_score}
