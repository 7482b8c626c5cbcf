"""What is in the loaded models, against the manifest and each other: a load without an error proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from parity.checks.integrity import Check
from parity.witnesses.witness import Witness


class Loaded(NamedTuple):
    """checks: one for each witness with weights. encoder: each one's digests of what stands before the heads."""

    checks: list[Check]
    encoder: dict[str, dict[str, str]]


def check_loaded(head: str, witnesses: Mapping[str, Witness], manifest: dict[str, Any] | None) -> Loaded:
    """Compare digests of loaded weights with the manifest's, or, for what it lacks, with the other witnesses'."""
    digests = {name: witness.digests() for name, witness in witnesses.items()}
    digests = {name: found for name, found in digests.items() if found}
    written = {} if manifest is None else {name: entry["sha256"] for name, entry in manifest["tensors"].items()}
    checks = []
    for name, found in digests.items():
        others = {weight: sha for other in digests.values() if other is not found for weight, sha in other.items()}
        expected = others | written
        wrong = sorted(weight for weight, sha in found.items() if expected.get(weight, sha) != sha)
        initialised = set(witnesses[name].initialised)
        unknown = sorted(weight for weight in found if manifest and weight not in written and weight not in initialised)
        held = sum(weight in written for weight in found)
        detail = f"{held} equal the manifest's sha256, {len(found) - held} not in it equal the other witnesses'"
        if wrong or unknown:
            detail = f"{len(wrong) + len(unknown)} of {len(found)} differ: {', '.join((wrong + unknown)[:3])}"
        checks.append(Check(f"{name} as loaded for {head}", bool(found) and not wrong and not unknown, detail))
    family = next(iter(witnesses.values())).config.family
    before_heads = tuple({f"{tap.module.partition('.')[0]}." for stage in family.stages for tap in stage.taps})
    encoder = {
        name: {weight: sha for weight, sha in found.items() if weight.startswith(before_heads)}
        for name, found in digests.items()
    }
    return Loaded(checks, encoder)
