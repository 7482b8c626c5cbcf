"""The proof that parity can fail: every fault is injected into one framework, and the comparison must fail.

For each fault and head the float64 reference runs with the same fault and without. That says whether the fault changes
the function on these weights and inputs. The comparison has no part in this decision. The proof fails if

* a fault changes the function and the comparison passes (missed);
* the comparison fails although the fault changes nothing (a false alarm);
* the comparison fails without any fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family
from bigbird_port.models.folder import read_folder_config
from bigbird_port.schema.table import Framework
from parity.checks.judged import check_judged
from parity.faults.catalogue import find_faults
from parity.faults.fault import Fault
from parity.faults.setup import (
    Remembered,
    Setup,
    cases_of,
    make_reference,
    make_setup,
    make_witness,
    read_setup,
    walk,
)
from parity.measure.losses import has_loss, make_labels
from parity.measure.metrics import scale_of
from parity.run.results import Finding, Result, Row
from parity.run.writing import searches_of, tokens_of

# A change by less than this, relative to a tap's scale, counts as no change, because float32 cannot hold it.
RESOLUTION = 2.0**-23
Report = Callable[[str], None]


@dataclass(frozen=True)
class Detection:
    """What became of one fault in one framework for one head.

    fault, into, head, case: the fault, the framework, the head and the model. how: what the fault was injected into.
    changes, evidence: whether the fault changes the function here, and how that is known.
    caught: whether the comparison failed.
    tap, factor: the first tap that failed, and how many times the allowed error it was off. The factor is None where
        the failure has no size, such as a wrong shape.
    located: where the fault was located. expected: the tap where it should show.
    """

    fault: str
    into: str
    head: str
    changes: bool
    caught: bool
    tap: str = ""
    factor: float | None = None
    located: str = ""
    expected: str = ""
    evidence: str = ""
    case: str = ""
    how: str = ""
    what: str = ""
    findings: tuple[Finding, ...] = field(default=(), repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """caught, missed, no change (rightly green), or false alarm."""
        if self.changes:
            return "caught" if self.caught else "missed"
        return "false alarm" if self.caught else "no change"

    @property
    def at_expected(self) -> bool:
        """Whether the fault showed first where it should."""
        return fnmatch(self.tap, self.expected)

    def to_row(self) -> dict[str, Any]:
        """The detection as plain data."""
        values = asdict(self)
        del values["findings"]
        return values | {"verdict": self.verdict}


@dataclass(frozen=True)
class Clean:
    """A comparison without any fault, and why it failed, if it did."""

    case: str
    head: str
    into: str
    seed: int
    compared: int
    worst: float
    problem: str = ""


@dataclass
class Proof:
    """What a run of all faults found. clean: the comparisons without any fault, which must pass; result: their rows.

    idle: the faults that were not injected, because they touch none of the heads.
    """

    into: str
    detections: list[Detection] = field(default_factory=list)
    clean: list[Clean] = field(default_factory=list)
    result: Result = field(default_factory=Result)
    idle: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[Detection]:
        """The faults that were missed, and the false alarms."""
        return [found for found in self.detections if found.verdict in ("missed", "false alarm")]

    @property
    def false_alarms(self) -> list[Clean]:
        """The comparisons that failed without any fault."""
        return [found for found in self.clean if found.problem]

    @property
    def passed(self) -> bool:
        """Whether all comparisons without a fault passed (at least one), and all faults that count were caught."""
        return bool(self.clean and self.detections) and not self.false_alarms and not self.failures

    def to_rows(self) -> list[dict[str, Any]]:
        """Every detection as plain data."""
        return [found.to_row() for found in self.detections]


def run_faults(
    out: Path | None = None,
    into: Framework = "torch",
    heads: Sequence[str] = (),
    names: Sequence[str] = (),
    seed: int = 0,
    report: Report | None = None,
    family: Family | None = None,
) -> Proof:
    """Inject faults (none named: all) for heads (none named: all) and return what was seen.

    out: what convert wrote, in place of the small models. report: is told what is being done. Raises ValueError for
    what is unknown or cannot be read. Nothing is injected where the comparison is red without.
    """
    family = read_folder_config(out, "torch").family if out else family or default_family()
    check_judged(family, out)
    faults, every = find_faults(tuple(names), family), family.heads
    chosen = tuple(heads) or tuple(every)
    idle = [fault for fault in faults if not fault.heads & set(chosen)]
    if idle and names:
        said = "; ".join(f"{fault.name} touches {', '.join(x for x in every if x in fault.heads)}" for fault in idle)
        raise ValueError(f"nothing to inject for {', '.join(chosen)}: {said}: choose such a head, or other faults")
    benches = _Benches(out, into, seed, family)
    proof = Proof(into, idle=[fault.name for fault in idle])
    cases = dict.fromkeys("" if out else fault.case for fault in faults if fault not in idle)
    for case, head in ((case, head) for case in cases for head in chosen if benches.has(case, head)):
        _say(report, f"without a fault: {case or (out and out.name)}, {head}")
        bench = benches.get(case, head)
        result = bench.right()
        proof.clean.append(bench.clean(result))
        _join(proof.result, result)
    if proof.false_alarms:
        return proof
    for fault in faults:
        own = [head for head in chosen if head in fault.heads and benches.has("" if out else fault.case, head)]
        _say(report, f"{fault.name}: {', '.join(own) or 'no head of these'}")
        with fault.in_twin(into):
            proof.detections += [benches.get("" if out else fault.case, head).run(fault) for head in own]
    return proof


def clean_runs(
    seeds: Sequence[int],
    into: Framework = "torch",
    heads: Sequence[str] = (),
    cases: Sequence[str] = ("padded",),
    family: Family | None = None,
) -> Iterator[Clean]:
    """Yield comparisons without any fault, each on weights and inputs of another seed. All must pass."""
    family = family or default_family()
    for seed in seeds:
        for case in cases:
            for head in heads or family.heads:
                bench = Bench(make_setup(case, head, seed, family), into)
                yield bench.clean(bench.right())


def _join(whole: Result, one: Result) -> None:
    """Add what one comparison found to a result of several."""
    whole.heads += [head for head in one.heads if head not in whole.heads]
    whole.conditions += [x for x in one.conditions if x.name not in [known.name for known in whole.conditions]]
    whole.rows += one.rows
    whole.located += one.located
    whole.witnesses = one.witnesses


def _say(report: Report | None, text: str) -> None:
    if report:
        report(text)


class _Benches:
    """Benches by case and head, made once."""

    def __init__(self, out: Path | None, into: Framework, seed: int, family: Family) -> None:
        self.out, self.into, self.seed, self.family = out, into, seed, family
        self.known: dict[tuple[str, str], Bench] = {}

    def has(self, case: str, head: str) -> bool:
        """Whether the model of a case can have a head."""
        config = cases_of(self.family)[case].config if case else read_folder_config(self.out, "torch")  # type: ignore[arg-type]
        try:
            config.for_head(head)
        except ValueError:
            return False
        return True

    def get(self, case: str, head: str) -> Bench:
        """The bench of a case ("": of the folder) and a head."""
        if (case, head) not in self.known:
            setup = (
                read_setup(self.out, head, "torch", self.seed)
                if self.out
                else make_setup(case, head, self.seed, self.family)
            )
            self.known[case, head] = Bench(setup, self.into)
        return self.known[case, head]


class Bench:
    """One model of one head on its inputs, the framework that faults go into, and the right reference."""

    def __init__(self, setup: Setup, into: Framework) -> None:
        self.setup, self.into = setup, into
        self.reference: Any = Remembered(make_reference(setup))
        self.witness = make_witness(into, setup)

    def right(self) -> Result:
        """Compare without any fault."""
        every = find_faults((), self.setup.config.family)
        gradients = any(
            fault.backward and self.setup.head in fault.heads and fault.holds(self.setup) for fault in every
        )
        return walk(self.setup, {"reference": self.reference, self.into: self.witness}, gradients=gradients)

    def clean(self, result: Result) -> Clean:
        """Judge a comparison without any fault."""
        red = _first_red(result.rows)
        problem = "" if red is None else f"{red.place} is off by {red.difference.excess:.3g} times what is allowed"
        worst = max((row.difference.excess for row in result.rows), default=float("inf"))
        if not result.rows:
            problem = "nothing was compared"
        place = (self.setup.name, self.setup.head, self.into, self.setup.seed)
        return Clean(*place, len(result.rows), worst, problem)

    def run(self, fault: Fault) -> Detection:
        """Compare with a fault that the caller keeps in, and ask the reference whether it changes anything."""
        result = self.faulty(fault)
        changes, evidence = self.changes(fault)
        red = _first_red(result.rows)
        caught: dict[str, Any] = {}
        if red is not None:
            excess = red.difference.excess
            caught = {"tap": red.tap, "factor": excess if np.isfinite(excess) else None, "located": _located(result)}
        return Detection(
            *(fault.name, self.into, self.setup.head, changes, red is not None),
            **caught,
            expected=fault.expects(self.setup),
            evidence=evidence,
            case=self.setup.name,
            how=fault.how,
            what=fault.what,
            findings=tuple(result.located),
        )

    def faulty(self, fault: Fault) -> Result:
        """Compare with a fault, until it is located. The caller keeps the fault in."""
        witness = self.witness  # which faults of the twin's code are in by themselves
        if not fault.twin:
            witness = make_witness(self.into, fault.applied(self.setup))
            fault.feed(witness, self.setup)
        sides = {"reference": self.reference, self.into: witness}
        return walk(self.setup, sides, until_located=True, gradients=fault.backward)

    def changes(self, fault: Fault) -> tuple[bool, str]:
        """Return whether a fault changes the function, and how that is known; stop at the first changed tap."""
        if fault.always:
            holds = fault.holds(self.setup)
            return holds, f"by what it is: {fault.always}{'' if holds else ', which is not so here'}"
        for tap, moved in self._moves(fault):
            if moved > RESOLUTION:
                return True, f"reference: {tap} moves by {moved:.1e} of its scale"
        return False, f"reference: no tap moves by more than {RESOLUTION:.1e} of its scale"

    def _moves(self, fault: Fault) -> Iterator[tuple[str, float]]:
        """By how much each tap of the reference moves, stage by stage."""
        setup, right = self.setup, self.reference
        known = self._loss_of_right()
        with fault.in_reference():
            wrong: Any = make_reference(fault.applied(setup))
            fault.feed(wrong, setup)
            one, other = right.start(setup.inputs), wrong.start(setup.inputs)
            yield from _moved(one[0], other[0])
            for step in setup.config.family.steps(setup.config)[1:-1]:
                one, other = right.step(step, one[1]), wrong.step(step, other[1])
                yield from _moved(one[0], other[0])
            scores = right.finish(one[1]), wrong.finish(other[1])
            yield from _moved(*scores)
            if has_loss(setup.head, setup.config.family):
                labels = make_labels(setup.config, setup.head, setup.inputs, setup.seed)
                yield from _moved({"loss": np.array(known)}, {"loss": np.array(wrong.loss(scores[1], labels))})
            yield from self._written(right, wrong)

    def _loss_of_right(self) -> float:
        """The right reference's loss, which no fault is in."""
        setup, right = self.setup, self.reference
        if not has_loss(setup.head, setup.config.family):
            return 0.0
        stream = right.start(setup.inputs)[1]
        for step in setup.config.family.steps(setup.config)[1:-1]:
            stream = right.step(step, stream)[1]
        labels = make_labels(setup.config, setup.head, setup.inputs, setup.seed)
        return float(right.loss(right.finish(stream), labels))

    def _written(self, right: Any, wrong: Any) -> Iterator[tuple[str, float]]:
        """Whether what the reference writes is another, and by how much the scores of a search move."""
        config, taps = self.setup.config, self.setup.config.family.heads[self.setup.head].writes
        if taps:
            T = tokens_of(config)
            for search in searches_of(None, config.vocab_size):
                one, other = (x.write(self.setup.inputs, T, search.beams, search.alpha) for x in (right, wrong))
                if not np.array_equal(one.ids, other.ids):
                    yield taps[0], float("inf")
                elif one.scores is not None:
                    yield from _moved({taps[2]: one.scores}, {taps[2]: other.scores})


def _moved(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    for tap, x in one.items():
        if tap not in other or other[tap].shape != x.shape:
            yield tap, float("inf")
            continue
        allowed = np.maximum(scale_of(x), np.abs(x))
        yield tap, float((np.abs(other[tap] - x) / np.maximum(allowed, np.finfo(np.float64).tiny)).max())


def _first_red(rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if not row.passed), None)


def _located(result: Result) -> str:
    if not result.located:
        return ""
    found = result.located[0]
    parts = [
        f"{noun} {', '.join(map(str, places))}"
        for noun, places in (("head", found.attention_heads), ("block", found.query_blocks))
        if 0 < len(places) <= 8
    ]
    return "; ".join([found.module, *parts])


__all__ = ["Bench", "Clean", "Detection", "Proof", "clean_runs", "run_faults"]
