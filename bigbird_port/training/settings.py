"""How a run trains, as the original's flags say it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

# Field -> the original's flag, where another name says it.
_FLAGS = {
    "beta1": "optimizer_beta1",
    "beta2": "optimizer_beta2",
    "epsilon": "optimizer_epsilon",
}
SCHEDULE = ("learning_rate", "num_train_steps", "num_warmup_steps")  # what no default stands in for


@dataclass(frozen=True)
class Training:
    """How a run trains; the fields are flags of the original.

    optimizer: a name of schema.slots.RULES. learning_rate: the peak. schedule: "linear" or "rsqrt". use_nsp: whether
    the loss has the term of the next sentence. Raises ValueError naming a field and what it must be.
    """

    optimizer: str
    learning_rate: float
    num_train_steps: int
    num_warmup_steps: int
    schedule: str = "linear"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    weight_decay_rate: float = 0.01
    use_nsp: bool = False

    def __post_init__(self) -> None:
        for name, rule, holds in _RULES:
            value = getattr(self, name)
            kind = bool if name == "use_nsp" else (int, float)
            if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)) or not holds(value):
                raise ValueError(f"{flag_of(name)} is {value!r}, but it must be {rule}")
        if self.schedule not in ("linear", "rsqrt"):
            raise ValueError(f"schedule is {self.schedule!r}, but it must be linear or rsqrt")

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any], optimizer: str, schedule: str, given: Mapping[str, Any]) -> Self:
        """Read the original's flags.

        optimizer: as the slots say. given: fields that the user names; they count first. Raises ValueError where
        nothing tells the schedule.
        """
        named = {field.name: flags[flag_of(field.name)] for field in fields(cls) if flag_of(field.name) in flags}
        named |= {name: value for name, value in given.items() if value is not None}
        named |= {"optimizer": optimizer, "schedule": schedule}
        if lacking := [name for name in SCHEDULE if name not in named]:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in lacking)
            raise ValueError(f"the flags beside the checkpoint do not say {', '.join(lacking)}: give {options}")
        return cls(**named)

    @property
    def flags(self) -> dict[str, Any]:
        """The original's flags that say the same."""
        return {flag_of(name): value for name, value in asdict(self).items() if name != "schedule"}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with changes."""
        return replace(self, **changes)


def flag_of(field: str) -> str:
    """The original's flag of a field."""
    return _FLAGS.get(field, field)


def _fraction(value: float) -> bool:
    return 0 <= value < 1


_RULES = (
    ("learning_rate", "finite and at least 0", lambda value: 0 <= value < math.inf),
    ("num_train_steps", "an integer of at least 1", lambda value: isinstance(value, int) and value >= 1),
    ("num_warmup_steps", "an integer of at least 0", lambda value: isinstance(value, int) and value >= 0),
    ("beta1", "at least 0 and below 1", _fraction),
    ("beta2", "at least 0 and below 1", _fraction),
    ("epsilon", "finite and above 0", lambda value: 0 < value < math.inf),
    ("weight_decay_rate", "finite and at least 0", lambda value: 0 <= value < math.inf),
    ("use_nsp", "true or false", lambda value: True),
)
