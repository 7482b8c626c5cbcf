"""What a conversion carries of training: every slot, where it comes from, and the state beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bigbird_port.conversion.source import Source
from bigbird_port.conversion.values.canonical import pieces_as, reading_order
from bigbird_port.families.configuration import Configuration
from bigbird_port.files.json_object import read_json_object
from bigbird_port.formats.store import Store, read
from bigbird_port.schema.reading.matching import Fate, Match
from bigbird_port.schema.slots import RULES, Slot, slots_of
from bigbird_port.schema.table import Weight, dims, weights_of
from bigbird_port.training.found import Found, StoredSlot, find_training
from bigbird_port.training.rebuilt import rebuilt
from bigbird_port.training.settings import Training, flag_of
from bigbird_port.training.state import TrainingState

FLOAT32 = np.dtype(np.float32)
_SHOWN = 5


@dataclass(frozen=True)
class Asked:
    """What is asked for of training. fresh: begin with empty slots at step 0. rebuild: factors of other axes.

    given: fields of Training that the user names; None where not.
    """

    fresh: bool = False
    rebuild: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CarriedSlot:
    """One slot on its way. source: its name in the source, None of one that is made. how: converted, rebuilt, fresh."""

    slot: Slot
    count: int
    source: str | None
    how: str
    pieces: Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Carried:
    """A training state to be written. fates: of the source's names. notes: what was decided, in sentences."""

    state: TrainingState
    slots: tuple[CarriedSlot, ...]
    fates: Mapping[str, Fate]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of values."""
        return sum(slot.count for slot in self.slots) * FLOAT32.itemsize


def plan_training(source: Source, match: Match, config: Configuration, head: str, asked: Asked) -> Carried:
    """Decide what is carried; raises ValueError where the state cannot be, with the next step."""
    found = None if asked.fresh else find_training(source, match)
    if found is None and not asked.fresh:
        raise ValueError(
            f"{source.opened.path}: --optimizer: it holds no optimizer's slots: leave --optimizer out, or write a "
            "fresh state, with empty slots and step 0, by --fresh-optimizer"
        )
    flags = _flags(source)
    rows = [row for row in weights_of(config, head, "torch") if row.name in match.sources or row.name in match.fills]
    try:
        if found is None:
            return _fresh(source, rows, config, head, flags, asked)
        return _going_on(found, source, rows, config, head, flags, asked)
    except ValueError as error:
        raise ValueError(f"{source.opened.path}: {error}") from None


def _flags(source: Source) -> dict[str, Any]:
    file = source.opened.config_file
    return read_json_object(file) if file and source.opened.style == "original" else {}


def _fresh(
    source: Source, rows: list[Weight], config: Configuration, head: str, flags: Mapping[str, Any], asked: Asked
) -> Carried:
    optimizer = asked.given.get("optimizer") or flags.get("optimizer", "AdamWeightDecay")
    if optimizer not in RULES:
        raise ValueError(f"the flags name the optimizer {optimizer!r}: expected one of {', '.join(RULES)}")
    training = Training.from_flags(flags, optimizer, config.family.heads[head].schedule, asked.given)
    rule = RULES[optimizer]
    trained = [row for row in rows if row.trains(config, head, training.flags)]
    powers = dict(zip(rule.powers, (_narrow(training.beta1), _narrow(training.beta2)), strict=False))
    slots = [
        CarriedSlot(slot, _count(slot, config), None, "fresh", partial(_zeros, _count(slot, config)))
        for row in trained
        for slot in slots_of(rule, row)
    ]
    still = tuple(row.name for row in rows if row not in trained)
    note = f"a fresh state of {optimizer}: {len(slots)} empty slots, step 0"
    return Carried(TrainingState(training, 0, powers, still), tuple(slots), {}, (note,))


def _going_on(
    found: Found,
    source: Source,
    rows: list[Weight],
    config: Configuration,
    head: str,
    flags: Mapping[str, Any],
    asked: Asked,
) -> Carried:
    if found.global_step is None:
        raise ValueError(
            "it holds slots and no global_step, without which neither rate nor optimizer can go on: begin anew by "
            "--fresh-optimizer"
        )
    if found.split and not asked.rebuild:
        raise ValueError(
            f"Adafactor's factors of {_some(found.split)} are those of kernels with three axes or biases with two, "
            "which no factors of the matrix or vector here can express: --rebuild-factors makes these from Adafactor's "
            "own estimate, and the next steps are then nearly the original's"
        )
    trained = {stored.slot.weight.name for stored in found.slots.values()}
    training, notes = _training(found, rows, trained, config, head, flags, asked)
    for row in rows:
        if row.name not in trained and row.trains(config, head, training.flags):
            raise ValueError(
                f"{row.name} has no slots, though a run of the {head} head trains it: the state cannot go on with it: "
                "begin anew by --fresh-optimizer"
            )
    own = {row.name for row in rows}
    here = {name: stored for name, stored in found.slots.items() if stored.slot.weight.name in own}
    still = tuple(row.name for row in rows if row.name not in trained)
    state = TrainingState(training, found.global_step, found.powers, still)
    slots = list(_slots(found, here, config))
    kept = {stored.name: Fate("slot", name) for name, stored in here.items()}
    left = {stored.name for name, stored in found.slots.items() if name not in here}
    if left:
        notes = (*notes, f"{len(left)} slots of weights of other heads are left behind")
    counters = {name: Fate("slot", what) for what, name in found.counters.items()}
    fates = kept | counters if found.state is None else {}
    return Carried(state, tuple(slots), fates, notes)


def _training(
    found: Found,
    rows: list[Weight],
    trained: set[str],
    config: Configuration,
    head: str,
    flags: Mapping[str, Any],
    asked: Asked,
) -> tuple[Training, tuple[str, ...]]:
    """How the run trains, as flags and slots say, and what the slots know better."""
    notes = []
    if found.state is not None:
        named = {name: value for name, value in asked.given.items() if value is not None}
        training = found.state.training.replace(**named)
    else:
        schedule = config.family.heads[head].schedule
        if flags.get("optimizer", found.rule.name) != found.rule.name:
            notes.append(f"the flags name {flags['optimizer']}, but the slots are {found.rule.name}'s: these count")
        training = Training.from_flags(flags, found.rule.name, schedule, asked.given)
    for flag, value in _seen(rows, trained, head):
        if getattr(training, flag) != value:
            if found.state is not None or flag_of(flag) in flags:
                notes.append(f"{flag} is {not value} in the flags, but the slots say {value}: these count")
            training = training.replace(**{flag: value})
    how = [f"{found.rule.name} at step {found.global_step}: {len(found.slots)} slots of {len(trained)} weights"]
    return training, (*how, *notes)


def _seen(rows: list[Weight], trained: set[str], head: str) -> Iterator[tuple[str, bool]]:
    """What the slots tell of flags that hold weights still."""
    seen: dict[str, bool] = {}
    for row in rows:
        if row.still and row.still[0] == head and hasattr(Training, row.still[1]):
            value = row.still[2] if row.name not in trained else not row.still[2]
            if seen.setdefault(row.still[1], value) != value:
                raise ValueError(f"{row.name} has no slots, though weights that train with it have: some are missing")
    yield from seen.items()


def _slots(found: Found, here: Mapping[str, StoredSlot], config: Configuration) -> Iterator[CarriedSlot]:
    sizes = dims(config)
    by_weight: dict[str, dict[str, StoredSlot]] = {}
    for stored in here.values():
        if stored.split:
            by_weight.setdefault(stored.slot.weight.name, {})[stored.slot.kind] = stored
    for name, own in reading_order(found.store, {name: stored.name for name, stored in here.items()}):
        stored = here[name]
        if not stored.split:
            pieces = partial(pieces_as, found.store, own, stored.axes, stored.slot.axes, sizes)
            yield CarriedSlot(stored.slot, _count(stored.slot, config), own, "converted", pieces)
    for factors in by_weight.values():
        rows, columns = factors["row"], factors["column"]
        for slot in slots_of(found.rule, rows.slot.weight):
            pieces = partial(_rebuilt, found.store, slot, rows.name, columns.name, sizes)
            yield CarriedSlot(slot, _count(slot, config), rows.name, "rebuilt", pieces)


def _rebuilt(store: Store, slot: Slot, rows: str, columns: str, sizes: Mapping[str, int]) -> Iterator[np.ndarray]:
    yield rebuilt(slot, read(store, rows), read(store, columns), sizes).reshape(-1)


def _zeros(count: int) -> Iterator[np.ndarray]:
    yield np.zeros(count, np.float32)


def _count(slot: Slot, config: Configuration) -> int:
    return math.prod(slot.shape(dims(config)))


def _narrow(value: float) -> float:
    return float(np.float32(value))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
