"""Which piece explains the first module that is off: a weight, a field of the configuration, or a step of its code.

The framework is fed the reference's own input of the module. Weights and fields of the configuration are put right one
by one, and the framework run again: a piece explains the error if it is gone with it. Where these are right already,
the module is computed again in NumPy from the framework's own taps, each time with one step done wrong: a step explains
the error if what comes out is what the framework computed.

Legend: B batch, L length, D hidden, N heads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.conversion.manifest import MANIFEST
from bigbird_port.files.json_object import read_json_object
from bigbird_port.schema.table import Framework
from bigbird_port.schema.weights import digest
from parity.faults.fault import Fault
from parity.faults.setup import FRAMEWORKS, Remembered, Setup, make_reference, make_witness, read_setup, walk
from parity.measure.metrics import measure
from parity.measure.tolerances import Tolerance
from parity.run.results import Finding, Result

_ROUNDS = 8  # several faults are found one after the other


@dataclass(frozen=True)
class Explanation:
    """What explains one finding.

    piece: "weight <canonical name>", "configuration <field>", or "code <step>"; empty if nothing does. before, after:
    error at the finding's tap, relative to its scale, without and with the piece put right (code: done wrong in the
    same way). allowed: what it may be. remains: what is off then.
    """

    finding: Finding
    piece: str
    before: float
    after: float
    allowed: float
    remains: str

    @property
    def sentence(self) -> str:
        """The same for people."""
        place = f"{self.finding.tap} ({self.finding.module})"
        if not self.piece:
            return f"{place}: no single piece explains the error of {self.before:.1e}; {self.remains}"
        how = "when reproduced" if self.piece.startswith("code") else "when replaced"
        return (
            f"{place}: explained by: {self.piece} (error {self.before:.1e} -> {self.after:.1e} {how}); {self.remains}"
        )


def bisect(right: Setup, wrong: Setup, into: Framework, fault: Fault | None = None) -> list[Explanation]:
    """Explain what is off in a framework, one finding after the other; empty if nothing is.

    right: the model as it should be, of the reference. wrong: what the framework holds. fault: of code, for
    demonstration; those of weights and configuration are put into ``wrong``.
    """
    if fault:
        wrong = fault.applied(wrong)
    with fault.in_twin(into) if fault else ExitStack():
        return list(_Bisection(right, into, fault).explain(wrong))


def bisect_folder(
    out: Path, head: str, into: Framework, seed: int = 0, fault: Fault | None = None
) -> list[Explanation]:
    """Explain what is off in what convert wrote; raises ValueError for bad files.

    The right weights and configuration are those of the framework whose files are as the manifest says.
    """
    right = read_setup(out, head, trusted(out, head), seed)
    family = right.config.family
    if importlib.util.find_spec(f"parity.bisect.{family.name}") is None:
        raise ValueError(
            f"{out}: there are no steps of bisection for {family.title} yet: 'bigbird-port parity {out}' locates where "
            "a difference starts"
        )
    return bisect(right, read_setup(out, head, into, seed), into, fault)


def trusted(out: Path, head: str) -> Framework:
    """Return the framework whose file holds what convert wrote; raises ValueError if none does."""
    if not (out / MANIFEST).is_file():
        return "torch"
    written = {name: entry["sha256"] for name, entry in read_json_object(out / MANIFEST)["tensors"].items()}
    for framework in FRAMEWORKS:
        weights = read_setup(out, head, framework).weights
        if all(digest(x) == written.get(name, digest(x)) for name, x in weights.items()):
            return framework
    raise ValueError(f"{out}: neither torch/ nor flax/ is what convert wrote: convert the checkpoint again")


class _Bisection:
    """One framework against one right model."""

    def __init__(self, right: Setup, into: Framework, fault: Fault | None) -> None:
        self.right, self.into, self.fault = right, into, fault
        self.reference: Any = Remembered(make_reference(right))

    def explain(self, wrong: Setup) -> Iterator[Explanation]:
        """Yield an explanation of the first finding; put its piece right, and go on with what remains."""
        result = self.run(wrong)
        for _ in range(_ROUNDS):
            if not result.located:
                return
            finding = result.located[0]
            before, allowed = self.error(wrong, finding), self.tolerance(result, finding).bound
            best = min(self.swaps(wrong, finding), key=lambda swap: swap[1], default=None)
            if best is None or best[1] > allowed:
                yield self.of_code(wrong, finding, before, allowed, result)
                return
            piece, after, wrong = best
            result = self.run(wrong)
            yield Explanation(finding, piece, before, after, allowed, _remains(result))

    def run(self, wrong: Setup) -> Result:
        """Compare everything."""
        return walk(self.right, {"reference": self.reference, self.into: self.witness(wrong)})

    def witness(self, wrong: Setup) -> Any:
        """The framework as it is, with the demonstrated fault."""
        witness = make_witness(self.into, wrong)
        if self.fault:
            self.fault.feed(witness, self.right)
        return witness

    def swaps(self, wrong: Setup, finding: Finding) -> Iterator[tuple[str, float, Setup]]:
        """Yield each piece that differs, the error once it is put right, and the setup with it put right.

        Weights of the module first, one by one and all together; then every field of the configuration.
        """
        right = self.right
        differ = [
            name
            for name, x in right.weights.items()
            if name not in wrong.weights or not np.array_equal(x, wrong.weights[name])
        ]
        own = [name for name in differ if name.startswith(f"{finding.module}.")]
        groups = [(name,) for name in own or differ] + ([tuple(own)] if len(own) > 1 else [])
        for names in groups:
            mended = replace(wrong, weights=wrong.weights | {name: right.weights[name] for name in names})
            noun = "weight" if len(names) == 1 else "weights"
            yield f"{noun} {', '.join(names)}", self.error(mended, finding), mended
        for name in (field.name for field in fields(right.config)):
            one, other = getattr(wrong.config, name), getattr(right.config, name)
            if one != other:
                mended = replace(wrong, config=wrong.config.replace(**{name: other}))
                yield f"configuration {name} ({one}, not {other})", self.error(mended, finding), mended

    def error(self, wrong: Setup, finding: Finding) -> float:
        """The error of the finding's tap, relative to its scale, where the framework gets the reference's input."""
        own, right = self.fed(wrong, finding.tap)
        return _distance(own, right, finding.tap)

    def fed(self, wrong: Setup, tap: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Taps of the stage that a tap is in: the framework's on the reference's input, and the reference's."""
        witness, inputs = self.witness(wrong), self.right.inputs
        (own, stream), (right, truth) = witness.start(inputs), self.reference.start(inputs)
        if tap in right:
            return own, right
        for step in self.right.config.family.steps(self.right.config)[1:-1]:
            fed = witness.inject(stream, self.reference.hidden(truth))
            right, truth = self.reference.step(step, truth)
            if tap in right:
                return witness.step(step, fed)[0], right
        return witness.finish(witness.inject(stream, self.reference.hidden(truth))), self.reference.finish(truth)

    def tolerance(self, result: Result, finding: Finding) -> Tolerance:
        """What the finding's tap may differ by."""
        return next(row.tolerance for row in result.rows if row.tap == finding.tap and not row.passed)

    def of_code(self, wrong: Setup, finding: Finding, before: float, allowed: float, result: Result) -> Explanation:
        """Find the step whose doing it wrong gives what the framework computed."""
        own, _ = self.fed(wrong, finding.tap)
        best: tuple[float, str] = (float("inf"), "")
        for step, computed in _steps_of(self.right)(finding, self.right, self.reference, own):
            error = _distance({finding.tap: computed}, own, finding.tap)
            best = min(best, (error, step))
            if error <= allowed:
                break
        others = list(dict.fromkeys(f.tap for f in result.located[1:]))
        remains = f"on the right input, also off: {', '.join(others)}" if others else "nothing else is off"
        if best[0] > allowed:
            return Explanation(finding, "", before, best[0], allowed, f"the nearest, {best[1]}, leaves {best[0]:.1e}")
        return Explanation(finding, f"code {best[1]}", before, best[0], allowed, remains)


def _steps_of(right: Setup) -> Any:
    """The function that does a family's modules wrong, one step at a time."""
    module: Any = importlib.import_module(f"parity.bisect.{right.config.family.name}.steps")
    return module.steps_of


def _distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tap: str) -> float:
    if tap not in one or tap not in other:
        return float("inf")
    return measure(one[tap], other[tap], 1.0).would_pass


def _remains(result: Result) -> str:
    red: Sequence[str] = [row.place for row in result.rows if not row.passed]
    return f"then {red[0]} is the first that is off" if red else "then everything is within tolerance"
