"""Training states read again: by their hashes against a manifest, and against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigbird_port.conversion.manifest import Manifest
from bigbird_port.conversion.source import Source
from bigbird_port.conversion.values.canonical import for_each, hash_pieces, pieces_as
from bigbird_port.schema.reading.matching import Match
from bigbird_port.schema.table import dims
from bigbird_port.training.found import Found, find_training


def slot_hashes(found: Found, source: Source) -> dict[str, str | ValueError]:
    """Return sha256 of every slot in canonical layout, by canonical name; an error where one cannot be read."""
    sizes = dims(source.config)

    def of(name: str) -> str:
        stored = found.slots[name]
        return hash_pieces(pieces_as(found.store, stored.name, stored.axes, stored.slot.axes, sizes))

    return for_each((name for name, stored in found.slots.items() if not stored.split), of)


def training_problems(source: Source, match: Match, manifest: Manifest, target: str) -> tuple[list[str], int]:
    """Return in what the training state of a target differs from the manifest's, and how many slots were compared."""
    listed = manifest.values["training"]
    found = find_training(source, match)
    if found is None:
        return ["there is none, but the manifest lists one"], 0
    problems = []
    state = listed["state"]
    told = {
        "optimizer": (found.rule.name, state["training"]["optimizer"]),
        "global_step": (found.global_step, state["global_step"]),
        "powers": (dict(found.powers), state["powers"]),
    }
    if found.state is not None:
        told["state"] = (found.state.to_json(), state)
    problems += [f"{what} is {was}, in the manifest {is_}" for what, (was, is_) in told.items() if was != is_]
    names = {name: entry["names"][target] for name, entry in listed["slots"].items() if target in entry["names"]}
    for name, stored in found.slots.items():
        if stored.name != names.get(name):
            problems.append(f"{name} is called {stored.name}, in the manifest {names.get(name)}")
    expected = {name: listed["slots"][name]["sha256"] for name in names}
    return problems + hash_problems(slot_hashes(found, source), expected), len(found.slots)


def source_problems(source: Source, match: Match, manifest: Manifest) -> tuple[list[str], int]:
    """Return in what the training state of a source differs from the manifest's, and how many slots were compared."""
    slots = manifest.values["training"]["slots"]
    expected = {name: entry["sha256"] for name, entry in slots.items() if entry["how"] == "converted"}
    if not expected:
        return [], 0
    found = find_training(source, match)
    hashes = slot_hashes(found, source) if found else {}
    return hash_problems({name: hashes[name] for name in expected if name in hashes}, expected), len(expected)


def hash_problems(found: Mapping[str, Any], expected: Mapping[str, str]) -> list[str]:
    """What keeps two sets of hashes from being one and the same."""
    problems = [str(value) for value in found.values() if isinstance(value, ValueError)]
    for name in sorted(found.keys() | expected.keys()):
        if name not in expected or name not in found:
            problems.append(f"{name} is {'not in the manifest' if name in found else 'missing'}")
        elif isinstance(found[name], str) and found[name] != expected[name]:
            problems.append(f"{name} differs from its sha256")
    return problems
