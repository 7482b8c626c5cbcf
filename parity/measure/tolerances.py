"""What a tap may differ by: one table of measured entries, each with how it was made.

``bigbird-port parity calibrate`` measures the table (parity/measure/calibration). Nothing in the table is set by hand.
An entry says how far the frameworks were from the float64 reference at worst. Its bound is that error times a factor.
What errors are relative to: parity/measure/metrics.py and, for gradients, parity/measure/gradient_scale.py.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family
from bigbird_port.files.reading import read_text
from parity.measure.derived import ARITHMETICS, DERIVED, MEASURED, ratio, why_derived

SHIPPED = Path(__file__).parent / "tolerances.json"
VERSION = 1
ERRORS = ("accumulated", "local", "gradient", "loss", "decoding")
# The whole model's call computes what the walk through its modules accumulates, and may be off as much.
_JUDGED_AS = {"called": "accumulated"}
BOTH = " + "  # between the keys of a pair's two sides, where they round differently
# From here on a bound excuses everything: a tap of zeros is off by 1.
MEANINGLESS = 1.0
# How an error grows with the layers that a tap has behind it, by name. A layer's rounding errors are independent of
# those before, and LayerNorm keeps what they are relative to: their squares add up. A gradient passes through all
# layers twice, and what it is differs with the values it meets there. Measured: parity/measure/calibration.
GROWTH: dict[str, Callable[[int], float]] = {
    "none": lambda layer: 1.0,
    "sqrt": lambda layer: math.sqrt(layer + 1),
    "linear": lambda layer: layer + 1.0,
}


@dataclass(frozen=True)
class Tolerance:
    """bound: allowed error of an element (see parity/measure/metrics.py), ``factor`` times what was measured at worst.

    worst: the largest measured error, at this tap's depth. reason: where the numbers come from. key: the entry of the
    table. floor: the least scale to relate errors to. rounding: where it is more than the table says, what rounding
    alone accounts for in this model (parity/measure/rounding.py), relative to the tap's scale; else 0. derived: it was
    not measured on its device, but follows from what was measured on the CPU (parity/measure/derived.py).
    """

    bound: float
    worst: float
    factor: float
    reason: str
    key: str
    floor: float = 0.0
    rounding: float = 0.0
    derived: bool = False


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    kind: of tap. worst: the largest error, divided by its growth (a name of GROWTH) with depth. samples: how many taps
    were measured. bound: worst * factor. at: where the worst was. reason: of the factor, the growth and the floor.
    """

    kind: str
    dtype: str
    device: str
    error: str
    worst: float
    samples: int
    factor: float
    bound: float
    growth: str
    floor: float
    at: str
    reason: str

    @property
    def key(self) -> str:
        """The entry's name."""
        return f"{self.kind}/{self.dtype}/{self.device}/{self.error}"


@dataclass(frozen=True)
class Table:
    """Entries by key. command, versions: what made it. unjudged: key -> why no bound would mean anything."""

    entries: Mapping[str, Entry]
    command: str
    versions: Mapping[str, str]
    unjudged: Mapping[str, str]

    def joined(self, other: Table) -> Table:
        """This table, with the entries of another (of a device that this one does not know) before its own."""
        unjudged = {key: why for key, why in self.unjudged.items() if key not in other.entries} | dict(other.unjudged)
        own = {key: entry for key, entry in self.entries.items() if key not in other.unjudged}
        return Table(own | dict(other.entries), other.command, other.versions, unjudged)

    def to_json(self) -> str:
        """The text of a table's file."""
        values = {
            "version": VERSION,
            "command": self.command,
            "versions": dict(self.versions),
            "entries": [asdict(self.entries[key]) for key in sorted(self.entries)],
            "unjudged": dict(sorted(self.unjudged.items())),
        }
        return json.dumps(values, indent=1) + "\n"


def tolerance_for(
    tap: str,
    dtype: str,
    device: str,
    error: str,
    layer: int | None = None,
    table: Table | None = None,
    steepness: float = 1.0,
    family: Family | None = None,
) -> Tolerance:
    """Return what ``tap`` may differ by when computed in ``dtype`` on a kind of device ("cpu", "cuda", "tpu").

    error: one of ERRORS, or "called", which accumulates. layer: how many layers lie before the tap's own: its layer's
    index or, for what follows the encoder and for every gradient, the number of layers; None takes an index from the
    tap's name. table: None is the family's own. steepness: of the loss, for gradients (gradient_scale.py), which
    are off that many times as much. Where the table has no entry of a device, it is derived from the CPU's. Raises
    ValueError for a key that cannot be had so either, naming it and how to measure it, and where no bound would mean
    anything.
    """
    family = family or default_family()
    table = shipped_table(family) if table is None else table
    error = _JUDGED_AS.get(error, error)
    kind = kind_of(tap, error, family)
    error = "loss" if kind == "loss" else error
    place = family.place(tap)
    if place and place.tap.exact:
        return Tolerance(0.0, 0.0, 1.0, place.tap.exact, f"{kind}/exact")
    key = f"{kind}/{dtype}/{device}/{error}"
    entry = table.entries.get(key) or derived_entry(table, kind, dtype, device, error)
    if entry is None or entry.bound >= MEANINGLESS:
        unjudged = table.unjudged.get(key) or _why_unjudged(table, entry, f"{kind}/{dtype}/{MEASURED}/{error}")
        if unjudged:
            raise ValueError(f"there is no tolerance {key}, for {tap}: {unjudged}; compare it in a wider dtype")
        raise ValueError(
            f"there is no tolerance {key}, for the tap {tap}: measure it on a machine with that device by "
            f"'bigbird-port parity calibrate --dtype {dtype} --device {device} --out FILE', and give --tolerances FILE"
        )
    growth = steepness * (GROWTH[entry.growth](_depth(tap, key, layer, family)) if entry.growth != "none" else 1.0)
    scores = f"with scores of {steepness:.3g} nats" if steepness > 1 else ""
    if entry.bound * growth >= MEANINGLESS:
        raise ValueError(
            f"{key}: {tap} may be off by {entry.bound * growth:.2g} of its scale at depth {layer}"
            f"{scores and f' and {scores}'}, which would excuse all: compare fewer layers, or in float32"
        )
    reason = f"{entry.reason}; as many times {scores}" if scores else entry.reason
    derived = key not in table.entries
    return Tolerance(
        entry.bound * growth, entry.worst * growth, entry.factor, reason, key, entry.floor, derived=derived
    )


def derived_entry(table: Table, kind: str, dtype: str, device: str, error: str) -> Entry | None:
    """The entry of a device that was not measured; None where nothing is known of its arithmetic."""
    measured = table.entries.get(f"{kind}/{dtype}/{MEASURED}/{error}")
    if measured is None or device == MEASURED or (device, dtype) not in ARITHMETICS:
        return None
    factor = measured.factor * ratio(device, dtype)
    return replace(
        measured,
        device=device,
        factor=factor,
        bound=measured.worst * factor,
        at=f"on the CPU: {measured.at}",
        reason=f"{why_derived(device, dtype)}; {measured.reason}",
    )


def _why_unjudged(table: Table, derived: Entry | None, measured_key: str) -> str:
    """Why a device has no entry because of what was measured on the CPU; empty where that is not why."""
    if derived is not None:
        return f"{DERIVED}, it may be off by {derived.bound:.2g} of its scale, which would excuse all"
    why = table.unjudged.get(measured_key, "")
    return f"on the CPU it is {why}" if why else ""


def kind_of(tap: str, error: str = "", family: Family | None = None) -> str:
    """Return the kind of a tap; gradients of weights (named by canonical name) and of taps have kinds of their own."""
    if tap.endswith("loss"):
        return "loss"
    family = family or default_family()
    place, last = family.place(tap), tap.rpartition(".")[2]
    if place:
        kind = place.tap.kind or place.tap.name
    else:
        kind = last if last in _PARAMETERS else family.own_name(tap.removeprefix("grad."))
    return f"grad.{kind}" if error == "gradient" or tap.startswith("grad.") else kind


def read_table(path: Path) -> Table:
    """Read a table; raises ValueError naming the file, and any entry whose bound does not follow from what it says."""
    try:
        values = json.loads(read_text(path))
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']}, expected {VERSION}")
        entries = [_entry(row) for row in values["entries"]]
        keys = [entry.key for entry in entries]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"{twice[0]} stands twice")
        return Table(dict(zip(keys, entries, strict=True)), values["command"], values["versions"], values["unjudged"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: no table of tolerances: {what}; 'bigbird-port parity calibrate' makes one") from None


def shipped_table(family: Family | None = None) -> Table:
    """Return the table of a family (None: of the default one) that comes with the package."""
    return _shipped((family or default_family()).name)


@functools.cache  # read once: it never changes
def _shipped(family: str) -> Table:
    own = SHIPPED.with_name(f"{SHIPPED.stem}.{family}.json")
    return read_table(own if own.is_file() else SHIPPED)


_PARAMETERS = ("kernel", "bias", "gamma", "beta", "embedding")


def _depth(tap: str, key: str, layer: int | None, family: Family) -> int:
    place = None if key.startswith("grad.") else family.place(tap)
    depth = place.layer if layer is None and place else layer
    if depth is None or depth < 0:
        raise ValueError(f"{key}: the error of {tap} grows with depth: give layer, the number of layers before it")
    return depth


def _entry(row: Mapping[str, Any]) -> Entry:
    """An entry that follows from its measurement; raises ValueError naming the one that does not."""
    name = "/".join(str(row.get(part)) for part in ("kind", "dtype", "device", "error"))
    expected = {field.name for field in fields(Entry)}
    if set(row) != expected:
        raise ValueError(f"{name} has not the fields {', '.join(sorted(expected ^ set(row)))}")
    entry = Entry(**row)
    if not (entry.samples > 0 and math.isfinite(entry.worst) and entry.worst >= 0 and entry.factor >= 1):
        raise ValueError(f"{name} is not measured: worst {entry.worst}, samples {entry.samples}, factor {entry.factor}")
    if entry.bound != entry.worst * entry.factor:
        raise ValueError(f"{name} has bound {entry.bound}, but {entry.worst} x {entry.factor} was measured")
    if entry.growth not in GROWTH or entry.error not in ERRORS or not (entry.at and entry.reason):
        raise ValueError(f"{name} has growth {entry.growth!r}, error {entry.error!r}, or no reason")
    return entry
