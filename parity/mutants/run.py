"""A run over mutants: the gate on the code as it is and on each mutant; then the probes on what is not caught."""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from parity.mutants.gate import DEFAULT, THOROUGH
from parity.mutants.generate import Mutant, mutants_of, sample
from parity.mutants.pool import run_jobs
from parity.mutants.scope import Side, sources
from parity.mutants.score import Outcome, Score
from parity.mutants.worker import Found, Job

Report = Callable[[str], None]
GATE = "parity.mutants.gate.stages"
_FACTOR, _AT_LEAST = 4, 30  # a mutant may take so many times as long as the code as it is, and so many seconds more


@dataclass(frozen=True)
class Wanted:
    """Which mutants are run, and on what.

    into: the side. only: a file or folder. size, seed: of a sample; None runs all. seconds: no mutant is begun later.
    thorough: whether the gate's second level is run. workers: processes at a time. gate: the function that lists the
    stages, as "module.function".
    """

    into: Side = "torch"
    only: str = ""
    size: int | None = None
    seed: int = 0
    seconds: float | None = None
    thorough: bool = True
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    gate: str = GATE


@dataclass
class _Clean:
    """The code as it is: by stage or probe, the seconds and the lines of every file that ran."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, set[int]]] = field(default_factory=dict)

    def reaching(self, names: list[str], mutant: Mutant) -> tuple[str, ...]:
        """Those of the names that run a line of the mutant's statement."""
        own = set(range(mutant.lines[0], mutant.lines[1] + 1))
        return tuple(name for name in names if name in self.lines and own & self.lines[name][mutant.file])


def run_mutants(wanted: Wanted, report: Report | None = None) -> Score:
    """Run mutants of a side's code and return what became of them.

    Raises ValueError for files without mutants, and if the gate is red on the code as it is.
    """
    begin, say = time.monotonic(), report or (lambda text: None)
    chosen, every = list_mutants(wanted)
    score = Score(wanted.into, of=every, seed=wanted.seed)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        runner = _Runner(wanted, Path(folder), chosen, say)
        levels, probes = runner.gate()
        runner.measure(list(levels), probes)
        probes.sort(key=lambda name: runner.clean.seconds[name])
        score.seconds = {name: round(seconds, 2) for name, seconds in runner.clean.seconds.items()}
        score.covered = runner.covered(levels)

        def in_time() -> bool:
            return wanted.seconds is None or time.monotonic() - begin < wanted.seconds

        for outcome in runner.outcomes(levels, probes, in_time):
            score.outcomes.append(outcome)
            say(f"{len(score.outcomes)} of {len(chosen)}: {outcome.verdict}: {outcome.mutant.name}")
    score.left = len(chosen) - len(score.outcomes)
    return score


def list_mutants(wanted: Wanted) -> tuple[list[Mutant], int]:
    """Return the mutants that would be run, and how many there are; raises ValueError for files without any."""
    found = [x for source in sources(wanted.into, wanted.only) for x in mutants_of(source, source.path.read_text())]
    if not found:
        raise ValueError(f"--only {wanted.only}: no rule changes anything there: choose another file")
    return sample(found, wanted.size, wanted.seed), len(found)


class _Runner:
    """One run: its folder, and what it knows of the code as it is."""

    def __init__(self, wanted: Wanted, folder: Path, mutants: list[Mutant], say: Report) -> None:
        self.wanted, self.folder, self.mutants, self.say = wanted, folder, mutants, say
        self.files = tuple(sorted({mutant.file for mutant in mutants}))
        self.clean = _Clean()

    def gate(self) -> tuple[dict[str, str], list[str]]:
        """The level of each stage by name, and the names of the probes."""
        module, _, function = self.wanted.gate.rpartition(".")
        stages = list(getattr(importlib.import_module(module), function)(self.wanted.into))
        kept = (DEFAULT, THOROUGH) if self.wanted.thorough else (DEFAULT,)
        probes = importlib.import_module("parity.mutants.probes.probe").probes(self.wanted.into)
        return {stage.name: stage.level for stage in stages if stage.level in kept}, [probe.name for probe in probes]

    def measure(self, stages: list[str], probes: list[str]) -> None:
        """Run stages and probes on the code as it is; raises ValueError where a stage is red, or a probe fails."""
        jobs = [self._job(stages=(name,), files=self.files) for name in stages]
        jobs += [self._job(probes=(name,), files=self.files) for name in probes]
        for job, found in run_jobs(jobs, self.wanted.workers):
            (name,) = job.stages + job.probes
            if problem := found.get("red") or found.get("raises") or found.get("timeout"):
                raise ValueError(f"{name} is red without any mutant, so it says nothing of mutants: {problem}")
            self.clean.seconds[name] = found["seconds"]
            self.clean.lines[name] = {file: set(lines) for file, lines in found["lines"].items()}
            self.say(f"{name}: {found['seconds']:.1f} s")

    def covered(self, levels: dict[str, str]) -> dict[str, dict[str, float]]:
        """By file, the share of the lines with mutants that the gate runs, by default and in all."""
        found = {}
        for file in self.files:
            mine = {mutant.lines for mutant in self.mutants if mutant.file == file}
            own = [set(range(first, last + 1)) for first, last in mine]
            found[file] = {
                level: sum(any(lines & self.clean.lines[name][file] for name in names) for lines in own) / len(own)
                for level, names in (
                    (DEFAULT, [name for name in levels if levels[name] == DEFAULT]),
                    (THOROUGH, list(levels)),
                )
            }
        return found

    def outcomes(self, levels: dict[str, str], probes: list[str], in_time: Callable[[], bool]) -> Iterator[Outcome]:
        """Yield what became of each mutant."""
        jobs = []
        for mutant in self.mutants:
            stages, reached = self.clean.reaching(list(levels), mutant), self.clean.reaching(probes, mutant)
            if not stages + reached:
                yield Outcome(mutant, "not run")
                continue
            limit = _FACTOR * sum(self.clean.seconds[name] for name in stages + reached) + _AT_LEAST
            jobs.append(self._job(stages, reached, mutant, int(limit)))
        for job, found in run_jobs(jobs, self.wanted.workers, in_time):
            assert job.mutant is not None
            yield _outcome(job.mutant, found, levels)

    def _job(
        self,
        stages: tuple[str, ...] = (),
        probes: tuple[str, ...] = (),
        mutant: Mutant | None = None,
        limit: int = 0,
        files: tuple[str, ...] = (),
    ) -> Job:
        wanted = self.wanted
        return Job(wanted.into, wanted.gate, self.folder, stages, probes, mutant, limit, files)


def _outcome(mutant: Mutant, found: Found, levels: dict[str, str]) -> Outcome:
    """Read what a worker answered."""
    stage = found.get("stage", "")
    if stage not in levels and ("raises" in found or "timeout" in found):
        # in a probe, which is no part of the gate, or before its first stage
        if not stage:
            return Outcome(mutant, "raises", DEFAULT, stage, found.get("raises", "took too long"))
        return Outcome(mutant, "survived", seen_by={stage.removeprefix("probe "): found.get("raises", "took too long")})
    if "timeout" in found:
        return Outcome(mutant, "timeout", levels[stage], stage, "took too long")
    if "raises" in found:
        return Outcome(mutant, "raises", levels[stage], stage, found["raises"])
    if "red" in found:
        return Outcome(mutant, "caught", levels[stage], stage, found["red"])
    differing = found["differing"]
    if changed := {name: how for name, how in differing.items() if how != "rounding"}:
        return Outcome(mutant, "survived", seen_by=changed)
    return Outcome(mutant, "rounding" if differing else "equivalent")
