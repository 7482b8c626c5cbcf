"""The original's own steps, as steps.safetensors holds them: its batches, and where it went from each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from bigbird_port.formats.safetensors.reader import SafetensorsFile
from bigbird_port.formats.store import read
from bigbird_port.schema.reading.naming import naming_of
from bigbird_port.schema.slots import slots_of
from bigbird_port.training.resuming import Resumed
from parity.given.inputs import Inputs
from parity.training.compare import After
from parity.training.rules import Arrays
from parity.training.runs import Stepped

_BATCH, _AFTER = "batch_{}.", "after_{}."


@dataclass(eq=False)
class GoldenSteps:
    """A file of steps. names: the original's name of a weight or slot -> the canonical."""

    path: Path
    store: SafetensorsFile
    names: dict[str, str]

    def check(self, resumed: Resumed) -> None:
        """Learn the names; raises ValueError unless the steps begin where the state is, under its optimizer."""
        first, found = int(self._series("global_step")[0]), resumed.state.global_step
        if first != found:
            raise ValueError(f"{self.path}: its steps begin at {first}, but the state is at {found}: give those of it")
        held = {name.partition(".")[2] for name in self.store.tensors if name.startswith("after_")}
        family = resumed.config.family
        rule = resumed.state.rule
        endings = {ending for each in rule.endings.values() for ending in each}
        own = [name for name in held if name.rpartition("/")[2] not in endings]
        naming = naming_of(family, "original", own)
        meanings = {name: meaning.name for name in own if (meaning := naming.meaning(name))}
        rows = {row.name: row for row in resumed.rows.values()}
        for name, weight in meanings.items():
            if weight not in rows or weight in resumed.not_trained:
                continue
            self.names[name] = weight
            for slot in slots_of(rule, rows[weight]):
                variable = f"{name}/{rule.endings[slot.kind][0]}"
                if variable not in held:
                    raise ValueError(f"{self.path}: it has no {variable}: these are another optimizer's steps")
                self.names[variable] = slot.name

    @property
    def count(self) -> int:
        """How many steps there are."""
        return len(self._series("loss"))

    def batches(self, steps: int) -> list[Inputs]:
        """Return the first batches; raises ValueError where there are fewer."""
        if steps > self.count:
            raise ValueError(f"{self.path}: it holds {self.count} steps: --steps is {steps}")
        found = []
        for n in range(1, steps + 1):
            prefix = _BATCH.format(n)
            found.append(
                {x.removeprefix(prefix): read(self.store, x) for x in self.store.tensors if x.startswith(prefix)}
            )
        return found

    def after(self, n: int, rates: float) -> After:
        """Return what the original said in step ``n``, and the state behind it where that was kept."""
        said = (float(self._series(name)[n - 1]) for name in ("loss", "learning_rate", "gradient_norm"))
        state: Arrays = {}
        for name, own in self.names.items():
            if (key := f"{_AFTER.format(n)}{name}") in self.store.tensors:
                state[own] = read(self.store, key).astype(np.float64)
        return After(Stepped(*said), state, rates)

    def _series(self, name: str) -> np.ndarray:
        if name not in self.store.tensors:
            raise ValueError(f"{self.path}: it has no {name}: expected steps of the original (steps.safetensors)")
        return read(self.store, name)


def read_steps(path: Path) -> GoldenSteps:
    """Open a file of steps; raises ValueError naming it and what is wrong with it."""
    try:
        found = GoldenSteps(path, SafetensorsFile(path), {})
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read as safetensors: {error}") from None
    for name in ("global_step", "loss", "learning_rate", "gradient_norm"):
        found._series(name)
    return found
