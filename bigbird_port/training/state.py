"""What a run is, besides its weights and slots: how it trains, and how far it is. The file training.json says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bigbird_port.files.json_object import read_json_object
from bigbird_port.schema.slots import RULES, Rule
from bigbird_port.training.settings import Training

STATE_FILE = "training.json"
SLOTS_FILE = "training.safetensors"
SLOTS_FOLDER = "training"  # of Orbax
VERSION = 1
_LARGEST_STEP = 2**62


@dataclass(frozen=True)
class TrainingState:
    """How a run trains, and how far it is.

    global_step: updates so far. powers: of Adam's betas, for the next update. not_trained: canonical names of weights
    that have no slots, because the run holds them still.
    """

    training: Training
    global_step: int
    powers: Mapping[str, float] = field(default_factory=dict)
    not_trained: tuple[str, ...] = ()

    @property
    def rule(self) -> Rule:
        """The optimizer."""
        return RULES[self.training.optimizer]

    def to_json(self) -> dict[str, Any]:
        """Return the values of training.json."""
        return {
            "version": VERSION,
            "global_step": self.global_step,
            "training": asdict(self.training),
            "powers": dict(self.powers),
            "not_trained": list(self.not_trained),
        }

    def text(self) -> str:
        """Return training.json."""
        return json.dumps(self.to_json(), indent=2) + "\n"


def read_state(file: Path) -> TrainingState:
    """Read training.json; raises ValueError naming the file and what is wrong with it."""
    return state_from(read_json_object(file), str(file))


def state_from(values: Mapping[str, Any], origin: str) -> TrainingState:
    """Return the state of JSON values; errors name ``origin``."""
    if values.get("version") != VERSION:
        raise ValueError(f"{origin}: version is {values.get('version')!r}, expected {VERSION}: convert it again")
    try:
        given = values["training"]
        state = TrainingState(
            Training(**{field.name: given[field.name] for field in fields(Training)}),
            checked_step(values["global_step"]),
            {str(name): float(value) for name, value in values["powers"].items()},
            tuple(map(str, values["not_trained"])),
        )
        if set(state.powers) != set(state.rule.powers):
            raise ValueError(f"powers are {sorted(state.powers)}, expected {list(state.rule.powers)}")
        return state
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{origin}: not a training state: {what}: convert the checkpoint again") from None


def checked_step(value: Any) -> int:
    """Return a global step; raises ValueError for what is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_STEP:
        raise ValueError(f"global_step is {value!r}, expected an integer of at least 0")
    return value
