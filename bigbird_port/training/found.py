"""The training state that a source holds: which tensors are slots of which weights. Names count, not the flag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigbird_port.conversion.source import Source
from bigbird_port.files.json_object import read_json_object
from bigbird_port.files.reading import is_there
from bigbird_port.formats.flax.orbax_reader import open_orbax, orbax_items
from bigbird_port.formats.safetensors.reader import SafetensorsFile
from bigbird_port.formats.store import Store, read
from bigbird_port.schema.layout import Dims, merged_shape
from bigbird_port.schema.reading.matching import Match
from bigbird_port.schema.slots import RULES, Rule, Slot, each_ending, groups, slot_axes, slots_of
from bigbird_port.schema.table import Weight, dims, weights_of
from bigbird_port.training.state import (
    SLOTS_FILE,
    SLOTS_FOLDER,
    STATE_FILE,
    TrainingState,
    checked_step,
    read_state,
)

_ENDINGS = {ending for _, _, ending in each_ending()}
_SHOWN = 5


@dataclass(frozen=True)
class StoredSlot:
    """Where a source holds a slot. name: its own. axes: the layout there, with groups split as the weight's are.

    split: whether the weight beside it has an axis for each of a group's, so that its factors are those of three axes.
    """

    slot: Slot
    name: str
    axes: str
    split: bool = False


@dataclass(frozen=True)
class Found:
    """A training state. slots: by canonical name. counters: names of variables that count, such as global_step.

    state: from training.json; None where variables alone tell. global_step: None where nothing does.
    """

    rule: Rule
    store: Store
    slots: Mapping[str, StoredSlot]
    counters: Mapping[str, str]
    global_step: int | None
    powers: Mapping[str, float]
    state: TrainingState | None = None

    @property
    def split(self) -> list[str]:
        """Names of the weights whose factors are those of other axes than a matrix has."""
        return sorted({stored.slot.weight.name for stored in self.slots.values() if stored.split})


def find_training(source: Source, match: Match) -> Found | None:
    """Return the training state beside the weights of ``match``; None where there is none.

    Raises ValueError for slots without weights, of another shape, of two optimizers, and where some are missing.
    """
    try:
        if source.opened.style == "original":
            return _in_variables(source, match)
        return _beside(source)
    except ValueError as error:
        named = str(error).startswith(str(source.opened.path))
        raise ValueError(str(error) if named else f"{source.opened.path}: {error}") from None


def _in_variables(source: Source, match: Match) -> Found | None:
    """The slots of a TensorFlow checkpoint: WEIGHT/ENDING."""
    store, sizes = source.opened.store, dims(source.config)
    rows = {row.name: row for row in weights_of(source.config)}
    own = {stored: rows[name] for name, stored in (match.sources | match.unused).items()}
    named = [name for name in store.tensors if name.rpartition("/")[2] in _ENDINGS and name not in own]
    if not named:
        return None
    if strays := [name for name in named if name.rpartition("/")[0] not in own]:
        raise ValueError(f"slots without weights: {_some(strays)}: is this a part of a larger checkpoint?")
    rule = _one_rule(named)
    slots: dict[str, StoredSlot] = {}
    for name, row in own.items():
        slots |= {stored.slot.name: stored for stored in _slots_beside(name, row, rule, store, sizes)}
    if unknown := sorted(set(named) - {stored.name for stored in slots.values()}):
        raise ValueError(f"{_some(unknown)}: no slot that {rule.name} keeps of such a weight")
    counters = {name: found for name in ("global_step", *rule.powers) if (found := _counter(store, name))}
    step = counters.get("global_step")
    powers = {name: float(read(store, counters[name])) for name in rule.powers if name in counters}
    if lacking := [name for name in rule.powers if name not in powers]:
        raise ValueError(f"{', '.join(lacking)}: missing, which {rule.name} needs to go on")
    return Found(rule, store, slots, counters, None if step is None else _step_in(store, step), powers)


def _one_rule(names: list[str]) -> Rule:
    endings = {name.rpartition("/")[2] for name in names}
    found = {rule.name for rule, _, ending in each_ending() if ending in endings}
    if len(found) > 1:
        raise ValueError(
            f"it holds slots of {' and of '.join(sorted(found))}: which of them trained last cannot be seen: remove "
            "one's slots, or begin with fresh ones by --fresh-optimizer"
        )
    return RULES[found.pop()]


def _slots_beside(name: str, row: Weight, rule: Rule, store: Store, sizes: Dims) -> Iterator[StoredSlot]:
    """The slots of one variable: all that it should have, or none."""
    shape = store.tensors[name].shape
    split = len(shape) > len(groups(row.axes))
    axes = row.axes.replace("(", "").replace(")", "") if split else row.axes
    kinds = ["row", "column"] if rule.factored and len(shape) > 1 else [slot.kind for slot in slots_of(rule, row)]
    held = {kind: [own for ending in rule.endings[kind] if (own := f"{name}/{ending}") in store.tensors]
            for kind in kinds}  # fmt: skip
    if lacking := [kind for kind in kinds if not held[kind]]:
        if len(lacking) < len(kinds):
            raise ValueError(f"{name} has some of its slots, but not {', '.join(lacking)} of {rule.name}")
        return
    for kind, names in held.items():
        if len(names) > 1:
            raise ValueError(f"{' and '.join(names)} are the same slot of {name}: remove one")
        own_axes = slot_axes(axes, kind)
        if (dtype := store.tensors[names[0]].dtype) != np.float32:
            raise ValueError(f"{names[0]} is {dtype}, expected float32, as the original keeps its slots")
        if (found := store.tensors[names[0]].shape) != (expected := merged_shape(own_axes, sizes)):
            raise ValueError(f"{names[0]} is {list(found)}, expected {list(expected)} beside {name} {list(shape)}")
        yield StoredSlot(Slot(row, kind), names[0], own_axes, split and rule.factored)


def _counter(store: Store, name: str) -> str | None:
    """The variable of this name, in whatever scope it stands."""
    found = [each for each in store.tensors if each == name or each.endswith(f"/{name}")]
    if len(found) > 1:
        raise ValueError(f"several variables are a {name}: {_some(found)}")
    return found[0] if found else None


def _step_in(store: Store, name: str) -> int:
    stored = store.tensors[name]
    if stored.shape != () or stored.dtype is None or stored.dtype.kind not in "iu":
        raise ValueError(f"{name} is {stored.dtype} {list(stored.shape)}, expected one integer")
    return checked_step(int(read(store, name)))


def state_folder(source: Source) -> Path | None:
    """The folder of a framework's weights beside which convert or a run wrote a training state; None without one."""
    folder = source.opened.path if source.opened.path.is_dir() else source.opened.path.parent
    if source.opened.style == "original" or not is_there(folder / STATE_FILE):
        return None
    own = "not_trained" in read_json_object(folder / STATE_FILE)  # a file of somebody's own may have that name
    return folder if own else None


def _beside(source: Source) -> Found | None:
    """What convert or a run wrote beside a framework's weights."""
    folder = state_folder(source)
    if folder is None:
        return None
    state = read_state(folder / STATE_FILE)
    store = _slots_store(folder)
    config, head, sizes = source.config, source.head, dims(source.config)
    slots: dict[str, StoredSlot] = {}
    expected: set[str] = set()
    for row in weights_of(config, head):
        if row.name in state.not_trained:
            continue
        axes = source.axes(row)
        for slot in slots_of(state.rule, row):
            there = slot.under(axes)
            own_axes = slot_axes(axes, there.kind)
            if there.name not in store.tensors:
                raise ValueError(f"{store.files[0]}: the slot {there.name} is missing: convert the checkpoint again")
            if (found := store.tensors[there.name].shape) != (shape := merged_shape(own_axes, sizes)):
                raise ValueError(f"{store.files[0]}: {there.name} is {list(found)}, expected {list(shape)}")
            expected.add(there.name)
            slots[slot.name] = StoredSlot(slot, there.name, own_axes)
    if strays := sorted(set(store.tensors) - expected):
        raise ValueError(f"{store.files[0]}: slots without weights: {_some(strays)}")
    return Found(state.rule, store, slots, {}, state.global_step, state.powers, state)


def _slots_store(folder: Path) -> Store:
    if is_there(folder / SLOTS_FILE):
        return SafetensorsFile(folder / SLOTS_FILE)
    if items := orbax_items(folder / SLOTS_FOLDER):
        return open_orbax(items)
    raise ValueError(f"{folder / SLOTS_FILE}: missing, though {STATE_FILE} is there: fetch it as well")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
