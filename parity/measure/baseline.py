"""A gate against errors that grow: what was measured over several seeds, and what may not be exceeded from now on.

A baseline holds, for each head, condition, pair of witnesses, kind of error and tap, the mean and the largest error
of several runs. An error is the least tolerance that would pass (``Difference.would_pass``), the largest among the
parts of a tap. Rounding errors vary by a factor, not by an amount, so their spread is that of their logarithm.

How far an error may grow follows from that spread. Over n runs, the logarithms of a key have mean m and standard
deviation s; with so few runs s itself is uncertain, so the spread of all keys of its kind of error, and that of all
keys, are its lower bounds. A recorded error is the largest of many, and such extremes follow a Gumbel distribution,
whose upper tail is longer than a normal one. A further run of the same code is below ``m + g s sqrt(1 + 1/n)`` but for
a chance p, g being that distribution's quantile for mean 0 and deviation 1. With p = FALSE_ALARM / number of keys, a
whole check of unchanged code fails by chance about once in 1 / FALSE_ALARM times. What was measured once is never a
regression: the recorded largest error passes.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bigbird_port.files.reading import read_text
from bigbird_port.files.writing import write_whole
from parity.measure.stages import stage_of
from parity.run.results import Result, Row

VERSION = 1
FALSE_ALARM = 0.01
# What one rounding to float32 may change: half a unit in the last place. Errors below it all count as this large.
RESOLUTION = 2.0**-24
Key = tuple[str, str, str, str, str]  # head, condition, pair, kind of error, tap
_FIELDS = ("head", "condition", "pair", "error", "tap")
_DIGITS = 4
_EULER = 0.5772156649015329


@dataclass(frozen=True)
class Regression:
    """What is worse than the baseline. key: as far as the trouble goes (a check, a head, a layer, a pair or a tap)."""

    what: Literal["grew", "disappeared", "no figure", "failed"]
    key: tuple[str, ...]
    detail: str

    def __str__(self) -> str:
        return f"{', '.join(self.key)}: {self.detail}"


def save(results: Sequence[Result], path: Path) -> None:
    """Write the baseline of several runs of the same comparison, with different seeds.

    Raises ValueError for fewer than two runs, a run that failed, and runs that compared different things, or the same
    in another dtype or on another device.
    """
    if len(results) < 2:
        raise ValueError(
            f"a baseline needs at least 2 runs with different seeds, to know how errors vary; found {len(results)}"
        )
    for i, result in enumerate(results):
        if not result.passed:
            raise ValueError(f"run {i + 1} of {len(results)} failed: a baseline is made of runs that passed")
    runs = [_errors(result, shared=False) for result in results]
    for i, run in enumerate(runs):
        different = sorted(run.keys() ^ runs[0].keys())
        if different:
            raise ValueError(f"runs 1 and {i + 1} compared different things, such as {', '.join(different[0])}")
    for i, result in enumerate(results):
        if _conditions(result) != _conditions(results[0]):
            raise ValueError(f"runs 1 and {i + 1} ran under different conditions: {_conditions(result)}")
    if len({tuple(run.values()) for run in runs}) < len(runs):
        raise ValueError("two runs have the same errors: run each with another seed, or there is no spread to measure")
    figures = [_entry(key, [run[key] for run in runs]) for key in sorted(runs[0])]
    kinds = {entry["error"]: [other for other in figures if other["error"] == entry["error"]] for entry in figures}
    pooled = {error: _rounded(max(_pooled(own), _pooled(figures))) for error, own in kinds.items()}
    values = {"version": VERSION, "runs": len(runs), "false_alarm": FALSE_ALARM, "spread": pooled}
    values |= {"conditions": _conditions(results[0])}
    lines = ",\n  ".join(json.dumps(entry, sort_keys=True) for entry in figures)
    head = json.dumps(values, indent=1, sort_keys=True)[:-2]
    write_whole(path, f'{head},\n "figures": [\n  {lines}\n ]\n}}\n', "parity baseline save")


def check(result: Result, path: Path) -> list[Regression]:
    """Return what is worse than the baseline, the broadest loss first, and what failed in the run itself.

    Raises ValueError if it cannot be read, or is of another dtype or device.
    """
    baseline = _read(path)
    for name, own in _conditions(result).items():
        if (known := baseline.conditions.get(name, own)) != own:
            raise ValueError(
                f"{path}: {name} ran with {_said(known)} in the baseline, and with {_said(own)} in this run"
            )
    found = _errors(result, shared=True)
    lost = [key for key in baseline.figures if key not in found]
    regressions = [Regression("disappeared", *loss) for loss in _losses(lost, baseline.figures)]
    for key, entry in baseline.figures.items():
        if key in found and not math.isfinite(found[key]):
            regressions.append(
                Regression("no figure", key, "there is no figure any more (NaN, Inf or nothing compared)")
            )
        elif key in found and found[key] > (limit := baseline.limit(entry)):
            detail = f"error {found[key]:.2e}, at most {entry['max']:.2e} in {baseline.runs} runs, limit {limit:.2e}"
            regressions.append(Regression("grew", key, detail))
    return [*regressions, *_failures(result, {regression.key for regression in regressions})]


def _failures(result: Result, known: set[tuple[str, ...]]) -> Iterator[Regression]:
    """What failed in a run, whatever the baseline says: its checks, what is beyond its tolerance, what is missing."""
    for failed in (one for one in result.checks if not one.passed):
        yield Regression("failed", (failed.name,), failed.detail)
    for condition, head in result.missing:
        if (head,) not in known:
            yield Regression("failed", (head, condition), "asked for, but nothing was compared")
    beyond = dict.fromkeys(_key(row, row.head) for row in result.failures)
    for key in (key for key in beyond if key not in known):
        yield Regression("failed", key, "the run failed here: the error is beyond its tolerance, or has no figure")
    if not result.conditions or not result.heads:
        yield Regression("failed", ("run",), "nothing was compared")


def new_keys(result: Result, path: Path) -> list[Key]:
    """Return what the run compared and the baseline does not know; raises ValueError if it cannot be read."""
    known = _read(path).figures
    return sorted(key for key in _errors(result, shared=False) if key not in known)


@dataclass(frozen=True, eq=False)
class _Baseline:
    runs: int
    false_alarm: float
    spread: Mapping[str, float]
    figures: Mapping[Key, Mapping[str, Any]]
    conditions: Mapping[str, Mapping[str, Any]]

    def limit(self, entry: Mapping[str, Any]) -> float:
        """The largest error that is no regression."""
        g = _gumbel(self.false_alarm / len(self.figures))
        spread = max(entry["spread"], self.spread[entry["error"]])
        predicted = entry["typical"] * math.exp(g * spread * math.sqrt(1 + 1 / self.runs))
        return max(predicted, entry["max"], RESOLUTION) * (1 + 10.0 ** (1 - _DIGITS))  # figures are rounded


def _gumbel(p: float) -> float:
    """What a Gumbel variable of mean 0 and deviation 1 exceeds with probability p."""
    return -math.sqrt(6) / math.pi * (_EULER + math.log(-math.log1p(-p)))


def _errors(result: Result, shared: bool) -> dict[Key, float]:
    """The largest error of each key; shared: rows count for every head that they stand for."""
    found: dict[Key, float] = {}
    for row in result.rows:
        error = row.difference.would_pass if not row.difference.problem else math.inf
        for head in row.heads if shared else (row.head,):
            key = _key(row, head)
            found[key] = max(found.get(key, 0.0), error)
    return found


def _conditions(result: Result) -> dict[str, dict[str, Any]]:
    """What errors depend on, by name of the condition: dtype, devices, fields of the configuration."""
    fields = ("dtype", "torch_device", "flax_device", "overrides")
    own = {one.name: {name: getattr(one, name) for name in fields} for one in result.conditions}
    return {name: values | {"overrides": dict(values["overrides"])} for name, values in own.items()}


def _said(condition: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in condition.items() if value)


def _key(row: Row, head: str) -> Key:
    return head, row.condition, f"{row.value} against {row.reference}", row.error, row.tap


def _entry(key: Key, errors: list[float]) -> dict[str, Any]:
    logs = [math.log(max(error, RESOLUTION)) for error in errors]
    figures = {
        "mean": statistics.fmean(errors),
        "max": max(errors),
        "typical": math.exp(statistics.fmean(logs)),
        "spread": statistics.stdev(logs),
    }
    return dict(zip(_FIELDS, key, strict=True)) | {name: _rounded(x) for name, x in figures.items()}


def _pooled(figures: Sequence[Mapping[str, Any]]) -> float:
    """Standard deviation of the logarithms within keys, over all keys that vary at all."""
    own = [entry["spread"] for entry in figures if entry["spread"] > 0]
    return math.sqrt(statistics.fmean(s * s for s in own)) if own else 0.0


def _losses(lost: Sequence[Key], known: Mapping[Key, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Say what is gone as broadly as is true: a head, its condition, a pair, a kind of error, a layer, or a tap."""
    gone, losses = set(lost), []
    while gone:
        key = min(gone)
        for name in _SCOPES:
            scope = _scope(key, name)
            members = {other for other in known if _scope(other, name) == scope}
            if scope and members <= set(lost):
                losses.append((scope, f"this {name} is not compared any more ({len(members)} figures)"))
                gone -= members
                break
    return losses


_SCOPES = ("head", "condition", "pair", "kind of error", "layer", "tap")


def _scope(key: Key, name: str) -> tuple[str, ...]:
    if name == "layer":
        stage = stage_of(key[4])
        return (*key[:4], f"layer {stage}") if isinstance(stage, int) else ()
    return key[: {"head": 1, "condition": 2, "pair": 3, "kind of error": 4, "tap": 5}[name]]


def _read(path: Path) -> _Baseline:
    try:
        values = json.loads(read_text(path))
        if values["version"] != VERSION:
            raise ValueError(f"its version is {values['version']!r}, expected {VERSION}: save it again")
        figures = {tuple(entry[name] for name in _FIELDS): entry for entry in values["figures"]}
        baseline = _Baseline(
            values["runs"], values["false_alarm"], values["spread"], figures, values.get("conditions", {})
        )
        if not figures:
            raise ValueError("it holds no figure")
        for entry in figures.values():
            baseline.limit(entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = error if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: expected a baseline that parity baseline save wrote: {reason}") from None
    return baseline


def _rounded(x: float) -> float:
    """Few digits, so that what is saved again differs only where errors do."""
    return float(f"{x:.{_DIGITS - 1}e}")
