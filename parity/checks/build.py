"""Whether this build computes what the original computed: the demo checkpoint against golden cases that are shipped.

The reference shares code with the frameworks: names, layouts, configurations, initial values. The original shares none.
"""

from __future__ import annotations

from pathlib import Path

from parity.checks.integrity import Check
from parity.given.golden import read_golden
from parity.reports.report import why, worst_of
from parity.run.conditions import Options
from parity.run.results import Result

CASES = Path(__file__).parents[1] / "given/original"


def check_build(demo: Path, options: Options) -> list[Check]:
    """Return a check for each shipped case. demo: what convert made of the shipped checkpoint.

    options: of the run that follows, for witnesses, devices and tolerances.
    """
    from parity.run.run import run_parity

    checks = []
    for path in sorted(CASES.glob("*.safetensors")):
        case = read_golden(path)
        own = Options(
            golden=case,
            witnesses=options.witnesses,
            torch_device=options.torch_device,
            flax_device=options.flax_device,
            local=False,
            tolerances=options.tolerances,
        )
        result = run_parity(demo, (case.head,), own)
        checks.append(Check(f"the original, {path.stem}", result.passed, _detail(result)))
    if not checks:
        checks.append(Check("the original", False, f"{CASES} holds no golden case: install bigbird-port anew"))
    return checks


def _detail(result: Result) -> str:
    """What was compared; or where the first difference is, and where it starts."""
    red = next(result.failures, None)
    if red is None and result.passed:
        worst = worst_of(result.rows).difference.excess
        return f"the demo agrees in {len(result.rows)} comparisons, at worst {worst:.2g} of what is allowed"
    start = [finding.sentence for finding in result.located[:1]]
    failed = [f"{check.name}: {check.detail}" for check in result.checks if not check.passed]
    first = [] if red is None else [f"{red.place} of {red.value} against {red.reference}: {why(red)}"]
    return "; ".join(["the demo differs: this build is wrong, whatever the model is", *first, *start, *failed])
