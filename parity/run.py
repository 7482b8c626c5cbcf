"""One parity run: every head on both frameworks, every tap compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.folder import read_folder_config
from bigbird_port.manifest import MANIFEST
from parity.golden import GoldenCase, derived_taps, excuse, golden_taps
from parity.inputs import Inputs, check_ids, default_length, for_head, make_inputs
from parity.integrity import Check, check_integrity
from parity.metrics import Difference, measure
from parity.runners import RUNNERS, Run
from parity.tolerances import FLOAT32_CPU


@dataclass(frozen=True)
class Row:
    """One comparison: ``value`` against ``reference`` at one tap of one head, or of one attention head of a tap."""

    head: str
    value: str
    reference: str
    tap: str
    attention_head: int | None
    shape: tuple[int, ...]
    tolerance: float
    difference: Difference


@dataclass
class Result:
    """Everything a run found. not_compared: golden tensors without a counterpart, by head."""

    checks: list[Check] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    initialised: dict[str, list[str]] = field(default_factory=dict)
    not_compared: dict[str, list[str]] = field(default_factory=dict)
    inputs: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check and row passed and every head has rows."""
        compared = {row.head for row in self.rows}
        return (
            bool(self.heads)
            and compared == set(self.heads)
            and all(check.passed for check in self.checks)
            and all(row.difference.passed for row in self.rows)
        )


@dataclass(frozen=True)
class Options:
    """What to run on: seeded inputs of a size (None: the defaults), or given ones, or a golden case's."""

    length: int | None = None
    batch: int = 2
    seed: int = 0
    inputs: Inputs | None = None
    golden: GoldenCase | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


def run_parity(out: Path, heads: Sequence[str], options: Options) -> Result:
    """Compare both frameworks for every head of ``heads`` on the model in ``out``; raises ValueError for bad input."""
    result = Result(heads=list(heads))
    if (out / MANIFEST).is_file():
        result.checks = check_integrity(out)
    overrides = dict(options.overrides)
    if options.golden:
        _check_comparable(heads)
        overrides["max_encoder_length"] = options.golden.max_encoder_length
    config = read_folder_config(out, "torch").replace(**overrides)
    inputs = _inputs(config, options)
    check_ids(inputs, config)
    result.inputs = _describe(inputs, config.pad_token_id, options)
    for head in heads:
        own = for_head(inputs, head)
        if head == "qa" and not (options.golden or options.inputs):
            # so that the token types which the model derives are compared as well
            own = {name: x for name, x in own.items() if name != "token_type_ids"}
        runs = {name: runner(out, head, own, overrides, options.seed) for name, runner in RUNNERS.items()}
        result.initialised[head] = next(iter(runs.values())).initialised
        result.rows += compare_taps(head, "flax", runs["flax"].taps, "torch", runs["torch"].taps)
        if options.golden:
            for name, run in runs.items():
                rows, result.not_compared[head] = compare_golden(head, name, run, options.golden)
                result.rows += rows
    return result


def _check_comparable(heads: Sequence[str]) -> None:
    for head in heads:
        if head in ("causal-lm", "multiple-choice"):
            raise ValueError(
                f"a golden case cannot be compared for {head}: the original evaluated one text with bidirectional "
                "attention; leave out --golden, or choose another head"
            )


def _inputs(config: Any, options: Options) -> Inputs:
    if options.golden:
        return options.golden.inputs
    if options.inputs:
        return options.inputs
    return make_inputs(config, options.batch, options.length or default_length(config), options.seed)


def _describe(inputs: Inputs, pad: int, options: Options) -> str:
    ids = inputs["input_ids"]
    origin = "golden case" if options.golden else "given" if options.inputs else f"seed {options.seed}"
    tokens = ", ".join(str(int(n)) for n in (ids != pad).sum(axis=1))
    return f"{ids.shape[0]} x {ids.shape[1]} tokens ({origin}; without padding {tokens})"


def compare_taps(
    head: str, name: str, taps: Mapping[str, np.ndarray], reference_name: str, reference: Mapping[str, np.ndarray]
) -> list[Row]:
    """Compare all taps of two runs; one that only one side has is a failed row."""
    names = [*reference, *(tap for tap in taps if tap not in reference)]
    rows: list[Row] = []
    for tap in names:
        if tap in taps and tap in reference:
            rows += _rows(head, name, reference_name, tap, taps[tap], reference[tap])
        else:
            missing = Difference(problem=f"{name if tap in reference else reference_name} has no such tap")
            rows.append(Row(head, name, reference_name, tap, None, (), FLOAT32_CPU.bound, missing))
    return rows


def compare_golden(head: str, name: str, run: Run, case: GoldenCase) -> tuple[list[Row], list[str]]:
    """Compare a run with a golden case on the positions that are not padding; also what had no counterpart."""
    taps = run.taps | derived_taps(run.taps, case, run.config)
    golden, left_over = golden_taps(case, list(taps))
    real_BL = case.inputs["input_ids"] != run.config.pad_token_id
    rows: list[Row] = []
    for tap, reference in golden.items():
        value, where = taps[tap], None
        if value.shape[:2] == real_BL.shape:
            where = real_BL
        elif tap.endswith((".query", ".key", ".value")):
            value, reference, where = value.swapaxes(1, 2), reference.swapaxes(1, 2), real_BL
        rows += _rows(head, name, "original", tap, value, reference, where)
    for tap in (tap for tap in left_over if not excuse(tap, case, head)):
        absent = Difference(problem=f"{name} has no such tap")
        rows.append(Row(head, name, "original", tap, None, (), FLOAT32_CPU.bound, absent))
    return rows, [tap for tap in left_over if excuse(tap, case, head)]


def _rows(
    head: str,
    name: str,
    reference_name: str,
    tap: str,
    value: np.ndarray,
    reference: np.ndarray,
    where: np.ndarray | None = None,
) -> Iterator[Row]:
    """The row of one tap and, for the context, one more for each attention head."""
    bound = FLOAT32_CPU.bound
    yield Row(head, name, reference_name, tap, None, value.shape, bound, measure(value, reference, bound, where))
    if tap.endswith(".context") and value.shape == reference.shape:
        for n in range(value.shape[2]):
            difference = measure(value[:, :, n], reference[:, :, n], bound, where)
            yield Row(head, name, reference_name, tap, n, value[:, :, n].shape, bound, difference)
