"""Calibration on the device, size after size: a table of tolerances, and how much of each derived one was needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from parity.measure.calibration.calibrate import Sample, make_table, measure_samples
from parity.measure.tolerances import Table, shipped_table
from parity.witnesses.devices import kind_of_device

# Those that take seconds come first; the reference computes each in float64 on the CPU before.
SIZES = ("full-16", "full-64-deep", "sparse-64-deep", "original-128", "sparse-256")
DTYPES = ("float32", "bfloat16")


def sizes(device: str, small: bool, framework: str) -> Iterator[dict[str, Any]]:
    """Yield the table after each size and number type, which the next one replaces."""
    samples: list[Sample] = []
    done: list[str] = []
    for size, dtypes in [(SIZES[0], DTYPES)] if small else [(size, (dtype,)) for size in SIZES for dtype in DTYPES]:
        samples += measure_samples((0,) if small else (0, 1), [size], dtypes, [device], [framework])
        done.append(f"{size} in {' and '.join(dtypes)}")
        table = make_table(samples, f"bigbird-port parity calibrate --device {device} --framework {framework}, in part")
        needed = dict(_needed(table, kind_of_device(device)))
        # a bound is factor times what was measured, so up to 1 / factor of it may be needed before it is too narrow
        beyond = {key: share for key, share in needed.items() if share > 1}
        yield {
            "what": ", ".join(done),
            "passed": not beyond,
            "value": f"{len(table.entries)} entries of {len(samples)} taps; "
            f"{len(beyond)} beyond the tolerance that parity has, at most {max(needed.values()):.2g} of it",
            "needed": needed,
            "table": json.loads(table.to_json()),
        }


def _needed(table: Table, device: str) -> Iterator[tuple[str, float]]:
    """Yield (key, what was measured, as a share of the bound that parity has for the device)."""
    from parity.measure.tolerances import derived_entry

    shipped = shipped_table()
    for key, entry in table.entries.items():
        own = shipped.entries.get(key) or derived_entry(shipped, entry.kind, entry.dtype, device, entry.error)
        if own is not None:
            yield key, entry.worst / own.bound
