"""A report as JSON (docs/parity-report.schema.json), and back.

JSON has no infinity and no NaN: they are "Infinity", "-Infinity" and null.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bigbird_port
from bigbird_port.files.reading import read_text
from parity.checks.integrity import Check
from parity.measure.metrics import Difference, LogitsDifference
from parity.measure.tolerances import Tolerance
from parity.reports.report import Report
from parity.run.results import Condition, Finding, Part, Result, Row

VERSION = 4
_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}
# Fields of a Result that are JSON values as they stand, apart from their numbers.
_PLAIN = ("heads", "initialised", "not_compared", "environment")


def to_json(report: Report) -> dict[str, Any]:
    """Return everything as JSON values; a row's tolerance_entry is the index of its tolerance."""
    result = report.result
    tolerances = list(dict.fromkeys(row.tolerance for row in result.rows))
    index = {tolerance: i for i, tolerance in enumerate(tolerances)}
    return {
        "version": VERSION,
        "bigbird_port": bigbird_port.__version__,
        "passed": result.passed,
        "witnesses": list(result.witnesses),
        "conditions": [_values(condition) for condition in result.conditions],
        "checks": [_values(check) for check in result.checks],
        "tolerances": [_values(tolerance) for tolerance in tolerances],
        "rows": [_row(row, index[row.tolerance]) for row in result.rows],
        "located": [_values(finding) for finding in result.located],
        "config": _value(report.config),
        "detection": _value(report.detection),
        "kept": _value(result.kept),
    } | {name: _value(getattr(result, name)) for name in _PLAIN}


def from_json(values: Any) -> Report:
    """Return the report that ``to_json`` was given; raises ValueError for another version or a broken document."""
    if not isinstance(values, Mapping) or values.get("version") != VERSION:
        found = values.get("version") if isinstance(values, Mapping) else type(values).__name__
        raise ValueError(
            f"expected a parity report of version {VERSION}, found {found!r}: run parity again with --json"
        )
    try:
        tolerances = [_made(Tolerance, {"rounding": 0.0, "derived": False} | entry) for entry in values["tolerances"]]
        result = Result(
            conditions=[_made(Condition, entry) for entry in values["conditions"]],
            checks=[_made(Check, entry) for entry in values["checks"]],
            rows=[_read_row(entry, tolerances) for entry in values["rows"]],
            located=[_made(Finding, entry) for entry in values["located"]],
            witnesses=tuple(values["witnesses"]),
            kept=values["kept"] and Path(values["kept"]),
            **{name: values[name] for name in _PLAIN},
        )
        return Report(result, values["config"], values["detection"])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not a parity report of version {VERSION}: {type(error).__name__}: {error}") from None


def read_report(path: Path) -> Report:
    """Read a report from a JSON file; raises ValueError naming the file and what is wrong with it."""
    try:
        return from_json(json.loads(read_text(path)))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a report that parity --json wrote: {error}") from None


def _row(row: Row, tolerance: int) -> dict[str, Any]:
    own = {field.name: _value(getattr(row, field.name)) for field in dataclasses.fields(row)}
    del own["difference"]
    derived = {"attention_head": row.attention_head, "passed": row.passed}
    return own | derived | {"tolerance": row.tolerance.bound, "tolerance_entry": tolerance} | _values(row.difference)


def _read_row(entry: Mapping[str, Any], tolerances: list[Tolerance]) -> Row:
    part, logits = entry["part"], entry["logits"]
    figures = {field.name: _number(entry[field.name]) for field in dataclasses.fields(Difference)}
    # what a figure of None means is said by its field: no number, or nothing of the kind
    figures |= {"problem": entry["problem"], "worst_index": tuple(entry["worst_index"])}
    figures["logits"] = logits and LogitsDifference(**{name: _number(x) for name, x in logits.items()})
    own = {field.name: entry[field.name] for field in dataclasses.fields(Row) if field.name != "difference"}
    own |= {"part": part and Part(**part), "shape": tuple(entry["shape"]), "shared_by": tuple(entry["shared_by"])}
    return Row(**own | {"tolerance": tolerances[entry["tolerance_entry"]], "difference": Difference(**figures)})


def _values(instance: Any) -> dict[str, Any]:
    return {field.name: _value(getattr(instance, field.name)) for field in dataclasses.fields(instance)}


def _value(x: Any) -> Any:
    """Return values that JSON has. A dataclass becomes an object, an unknown kind of value its text."""
    if isinstance(x, float) and not math.isfinite(x):
        return None if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"
    if x is None or isinstance(x, str | bool | int | float):
        return x
    if dataclasses.is_dataclass(x):
        return _values(x)
    if isinstance(x, Mapping):
        return {str(name): _value(value) for name, value in x.items()}
    return [_value(value) for value in x] if isinstance(x, list | tuple) else str(x)


def _number(x: Any) -> Any:
    return math.nan if x is None else _INFINITIES.get(x, x) if isinstance(x, str) else x


def _made(cls: type[Any], entry: Mapping[str, Any]) -> Any:
    """Return a dataclass from its values. Lists become tuples, because the fields are tuples."""
    values = {field.name: entry[field.name] for field in dataclasses.fields(cls)}
    return cls(**{name: tuple(x) if isinstance(x, list) else x for name, x in values.items()})
