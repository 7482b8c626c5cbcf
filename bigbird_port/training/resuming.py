"""What resume does before a framework comes in: a folder's training state, for one head, in a framework's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigbird_port.conversion.source import open_source
from bigbird_port.families.configuration import Configuration
from bigbird_port.files.outputs.out_folder import check_out
from bigbird_port.files.reading import is_there
from bigbird_port.formats.store import read
from bigbird_port.schema.slots import slots_of
from bigbird_port.schema.table import Framework, Weight, weights_of
from bigbird_port.schema.weights import framework_axes, framework_name
from bigbird_port.training.found import find_training
from bigbird_port.training.saving import recover
from bigbird_port.training.state import TrainingState

LOSS_STYLES = ("transformers", "original")


@dataclass(frozen=True)
class Resumed:
    """A training state, read. slots: framework's name of a weight -> kind -> values, as the weight lies there.

    rows: of the head, by the framework's name. What has no slots is held still.
    """

    folder: Path
    config: Configuration
    head: str
    state: TrainingState
    rows: Mapping[str, Weight]
    slots: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def not_trained(self) -> tuple[str, ...]:
        """The canonical names of what is held still."""
        return tuple(row.name for name, row in self.rows.items() if name not in self.slots)

    @property
    def decays(self) -> frozenset[str]:
        """The framework's names of what decays."""
        return frozenset(name for name, row in self.rows.items() if row.decays)


def read_training(out: str | Path, framework: Framework, head: str | None) -> Resumed:
    """Read the training state in what convert or a run wrote, for ``head`` (None: the folder's own).

    Raises ValueError where there is none, where it is another head's, or damaged.
    """
    folder = _locate(Path(out), framework)
    source = open_source(folder)
    own = source.config.family.find_head(head) if head else None
    if head and own is None:
        raise ValueError(f"unknown head {head!r}: expected one of {', '.join(source.config.family.heads)}")
    name = own.name if own else source.head
    found = find_training(source, source.match(source.head))
    if found is None or found.state is None:
        raise ValueError(
            f"{folder}: it holds no training state: convert the checkpoint with --optimizer, or with --fresh-optimizer"
        )
    config = source.config.for_head(name)
    rows = {framework_name(row, framework): row for row in weights_of(config, name, framework)}
    slots: dict[str, dict[str, np.ndarray]] = {}
    for place, row in rows.items():
        if row.name in found.state.not_trained or name not in row.heads:
            continue
        for slot in slots_of(found.rule, row):
            if slot.name not in found.slots:
                raise ValueError(
                    f"{folder}: {row.name} has no slots: the state is that of a {source.head} run, not of {name}: "
                    "convert with --head and --fresh-optimizer to begin one"
                )
            there = slot.under(framework_axes(row, framework))
            slots.setdefault(place, {})[there.kind] = read(found.store, found.slots[slot.name].name)
    return Resumed(folder, config, name, found.state, rows, slots)


def style_of(config: Configuration, style: str | None, replicas: int | None, devices: int) -> tuple[str, int]:
    """Return the loss's style and how many replicas a batch is of; None: what the configuration and the devices say.

    devices: among which a batch is split. Raises ValueError for a style that there is not, and for replicas of one that
    has none.
    """
    style = style or getattr(config, "loss_style", LOSS_STYLES[0])
    if style not in LOSS_STYLES:
        raise ValueError(f"loss_style is {style!r}, expected one of {', '.join(LOSS_STYLES)}")
    if replicas is None:
        replicas = devices if style == "original" else 1
    if replicas < 1 or (replicas > 1 and style != "original"):
        raise ValueError(
            f"replicas is {replicas} with loss_style={style!r}: expected 1, or more in the style 'original'"
        )
    return style, replicas


def _locate(path: Path, framework: Framework) -> Path:
    recover(path.absolute())
    check_out(path)
    folder = path / framework if is_there(path / framework / "config.json") else path
    if not is_there(folder / "config.json"):
        raise ValueError(
            f"{folder}: there is no model in it: make it with 'bigbird-port convert TF_CKPT {path} --optimizer'"
        )
    return folder
