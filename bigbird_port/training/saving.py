"""A run's folder: a model and its training state, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bigbird_port.files.outputs.exchange_names import exchange_names
from bigbird_port.files.outputs.out_folder import holder_of
from bigbird_port.formats.filling import flush_one, write_arrays
from bigbird_port.formats.safetensors.writer import SafetensorsFormat
from bigbird_port.training.state import SLOTS_FILE, STATE_FILE, TrainingState

SLOTS_FORMAT = SafetensorsFormat({"format": "bigbird-port training"}, SLOTS_FILE)
_OWN = {"config.json", "model.safetensors", "flax_model.msgpack", SLOTS_FILE, STATE_FILE}


def write_training(folder: Path, state: TrainingState, slots: Mapping[str, np.ndarray]) -> None:
    """Write both files of a training state into a folder. slots: by CANONICAL/kind, as the weights lie there."""
    write_arrays(folder, SLOTS_FORMAT, slots)
    (folder / STATE_FILE).write_text(state.text(), encoding="utf-8")


@contextmanager
def whole_save(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Give a new folder beside ``folder`` to fill; on success it takes its name, on any error it is removed.

    Raises ValueError where the name is taken by anything but an earlier save that may be overwritten.
    """
    folder = Path(os.path.abspath(folder))
    recover(folder)
    _check_replaceable(folder, overwrite)
    staged, old = folder.parent / f".{folder.name}.saving", _old(folder)
    for left in (staged, old):
        if left.exists():
            _check_ours(left)
            shutil.rmtree(left)
    try:
        staged.mkdir(parents=True)
        yield staged
        for path in (*sorted(staged.iterdir()), staged):
            flush_one(path)
        _check_replaceable(folder, overwrite)
        _replace(staged, folder, old)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be saved: {error.strerror or error}: choose another place") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def recover(folder: Path) -> None:
    """Give an earlier save its name back, where a process was killed between its two steps.

    There are two where the file system cannot exchange names: the old save loses the name, and the new one gets it.
    """
    if _old(folder).is_dir() and not os.path.lexists(folder):
        _check_ours(_old(folder))
        _old(folder).rename(folder)


def _old(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.saved"


def _replace(staged: Path, folder: Path, old: Path) -> None:
    """Give the new folder its name; an earlier one has that of ``staged`` then, and goes."""
    if folder.exists() and not exchange_names(staged, folder):
        folder.rename(old)
    if not folder.exists():
        staged.rename(folder)
    flush_one(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    if holder := holder_of(folder):
        raise ValueError(f"{folder}: lies in {holder}, which convert wrote: save it elsewhere")
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise ValueError(f"{folder}: exists already: choose another name, or replace an earlier save by overwrite=True")
    _check_ours(folder)


def _check_ours(folder: Path) -> None:
    """Raise ValueError unless a folder holds what a run saves, and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"{folder}: is a link, or no folder: choose another name")
    others = sorted(path.name for path in folder.iterdir() if path.name not in _OWN)
    if others:
        raise ValueError(f"{folder}: holds {others[0]}, which no run saves: choose another name")
