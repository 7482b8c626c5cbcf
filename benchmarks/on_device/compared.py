"""Parity of every head of both families on the device: every tap, gradients and decoding, and users' ways to call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.on_device.running import ROOT

# By family: the checkpoint of the original that comes with the project, and the length of the texts.
MODELS = {"bigbird": ("bigbird_port/demo_checkpoint", None), "pegasus": ("tests/golden/mini-pegasus", None)}


def heads(device: str, small: bool, framework: str, dtype: str) -> Iterator[dict[str, Any]]:
    """Yield a finding for each head; with gradients in float32, whose tolerances are known for all of them."""
    from bigbird_port.conversion.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        for family, (source, length) in MODELS.items():
            out = Path(folder) / family
            convert(ROOT / source, out)
            for head in _heads(out):
                yield _compared(out, head, 80 if small else length, device, framework, dtype)


def _heads(out: Path) -> Iterator[str]:
    """The heads that the model can have."""
    from bigbird_port.models.folder import read_folder_config

    config = read_folder_config(out, "torch")
    for head in config.family.heads:
        try:
            config.for_head(head)
        except ValueError:
            continue
        yield head


def _compared(out: Path, head: str, length: int | None, device: str, framework: str, dtype: str) -> dict[str, Any]:
    """Of one head: the verdict, the worst row, and how far every kind of error is from its tolerance."""
    from bigbird_port.families.registry import find_head
    from parity.reports.report import derived_of, why, worst_of
    from parity.run.conditions import Options
    from parity.run.run import run_parity

    with_loss = dtype == "float32" and not find_head(head).no_loss
    options = Options(
        witnesses=(framework, "reference"),
        length=length,
        batch=2,
        dtype=dtype,  # type: ignore[arg-type]
        torch_device=device,
        flax_device=device,
        gradients=with_loss,
        decoding=find_head(head).decodes,
    )
    what = f"{out.name}, {head}"
    try:
        result = run_parity(out, (head,), options)
    except ValueError as error:
        return {"what": what, "passed": False, "value": str(error)}
    worst, failed = worst_of(result.rows), [row for row in result.rows if not row.passed]
    errors = dict.fromkeys(row.error for row in result.rows)
    checks = [f"{check.name}: {check.detail}" for check in result.checks if not check.passed]
    return {
        "what": what,
        "passed": result.passed,
        "value": f"{len(result.rows)} comparisons, {len(failed)} failed; worst {worst.place}: {why(worst)}",
        "failed": [f"{row.place} ({row.error}): {why(row)}" for row in failed[:20]] + checks,
        "of_allowed": {
            error: max(row.difference.excess for row in result.rows if row.error == error) for error in errors
        },
        "judged_by": derived_of(result) or "measured tolerances",
    }
