"""Checkpoints of the original, changed: what people bring that no conversion should take as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.store import read
from bigbird_port.formats.tensorflow.bundle_writer import TensorBundleFormat


def arrays_of(checkpoint: Path) -> dict[str, np.ndarray]:
    store = open_store(checkpoint).store
    return {name: read(store, name) for name in store.tensors}


def write(folder: Path, arrays: dict[str, np.ndarray], flags: dict | None) -> Path:
    """A checkpoint with these variables, its flags beside it."""
    folder.mkdir(parents=True)
    write_arrays(
        folder, TensorBundleFormat("model.ckpt-1"), {name: np.array(x, order="C") for name, x in arrays.items()}
    )
    if flags is not None:
        (folder / "pretrain.config").write_text(json.dumps(flags))
    return folder / "model.ckpt-1"


def changed(folder: Path, steps, change=lambda arrays: None, flags=lambda values: None) -> Path:
    """steps' first checkpoint, with its variables and flags changed in place."""
    arrays, values = arrays_of(steps.checkpoint), steps.flags
    change(arrays)
    flags(values)
    return write(folder, arrays, values)


def copied(folder: Path, steps) -> Path:
    shutil.copytree(steps.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder / steps.checkpoint.name
