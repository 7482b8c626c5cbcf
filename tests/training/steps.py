"""The original's optimizer steps: its batches, gradients, and weights and slots behind them, by canonical names."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from bigbird_port.conversion.source import Source, open_source
from bigbird_port.formats.store import read
from bigbird_port.schema.slots import RULES, slots_of
from bigbird_port.schema.table import weights_of
from tests.conftest import ROOT, SHARED

MINI = "mini-training"
FOLDERS = ("warmup", "crossing", "from-zero", "adafactor", "adam", "classifier")
FIRST = {MINI: 10, "from-zero": 0}
SNAPSHOTS = (1, 2, 4, 8)
KEY_BIAS = "attention.self.key.bias"


@dataclass(frozen=True)
class Steps:
    """A golden folder. names: canonical name of a weight or slot -> the original's."""

    folder: Path
    checkpoint: Path
    source: Source
    names: dict[str, str]
    weights: dict[str, str]

    @property
    def flags(self):
        return json.loads(next(self.folder.glob("*.config")).read_text())

    @property
    def optimizer(self):
        return self.flags["optimizer"]

    def tensors(self, file="steps.safetensors"):
        return safe_open(self.folder / file, "np")

    def batch(self, n):
        with self.tensors() as file:
            prefix = f"batch_{n}."
            return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys()  # noqa: SIM118
                    if name.startswith(prefix)}  # fmt: skip

    def series(self, name):
        with self.tensors() as file:
            return file.get_tensor(name)

    def after(self, n):
        """Everything behind step n, in canonical names and the original's layout; n 0: before the first."""
        if n == 0:
            store = self.source.opened.store
            return {name: read(store, own) for name, own in self.names.items()}
        with self.tensors() as file:
            return {name: file.get_tensor(f"after_{n}.{own}") for name, own in self.names.items()}

    def source_value(self, name):
        return read(self.source.opened.store, name)

    def gradients(self, n):
        with self.tensors("gradients.safetensors") as file:
            held = set(file.keys())
            return {name: file.get_tensor(f"grad_{n}.{own}") for name, own in self.weights.items()
                    if f"grad_{n}.{own}" in held}  # fmt: skip


@functools.cache
def steps_of(name: str) -> Steps:
    """A folder's steps; mini-training comes with the project, the others may be absent."""
    folder = ROOT / "tests/golden" / MINI if name == MINI else SHARED / "golden/tiny-training" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: only golden/{MINI} comes with the project")
    checkpoint = folder / f"model.ckpt-{FIRST.get(name, 20)}"
    source = open_source(checkpoint)
    match = source.match(source.head)
    rows = {row.name: row for row in weights_of(source.config)}
    names = dict(match.sources)
    rule, held = RULES[json.loads(next(folder.glob("*.config")).read_text())["optimizer"]], source.opened.store.tensors
    for weight, own in match.sources.items():
        for slot in slots_of(rule, rows[weight]):
            found = f"{own}/{rule.endings[slot.kind][0]}"
            if found in held:
                names[slot.name] = found
    return Steps(folder, checkpoint, source, names, dict(match.sources))


def worst(found, expected, names=None):
    """The largest difference, of max(|w|, 0.05) for weights and of the largest value for slots; and where it is."""
    differences = {
        name: float((np.abs(np.float64(found[name]) - expected[name]) / _scale(name, expected[name])).max())
        for name in (expected if names is None else names)
    }
    assert differences
    name = max(differences, key=differences.get)
    return differences[name], name


def _scale(name, values):
    if "/" in name:  # a slot
        return max(float(np.abs(values).max()), 1e-30)
    return np.maximum(np.abs(values), 0.05)
