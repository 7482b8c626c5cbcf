"""Tensors of the first failing layer, kept for a closer look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from bigbird_port.files.writing import check_kept_folder, write_whole
from parity.run.locate import Comparison
from parity.run.results import Finding


def keep_tensors(folder: Path, stage: Comparison, finding: Finding, fed: np.ndarray | None) -> Path:
    """Write input, value and reference of a failing stage to a safetensors file in ``folder``; return its path.

    Names are ``input`` (the reference's; absent for embeddings), ``value.<tap>`` and ``reference.<tap>``.
    """
    check_kept_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sides = {"value": stage.sides[0], "reference": stage.sides[1]}
    arrays = {f"{side}.{tap}": x for side, taps in sides.items() for tap, x in taps.items()}
    if fed is not None:
        arrays["input"] = fed
    path = folder / f"{finding.head}.{finding.tap}.{finding.value}-{finding.reference}.safetensors"
    plain = {name: np.ascontiguousarray(_plain(x)) for name, x in arrays.items()}
    about = {"sentence": finding.sentence, "condition": finding.condition}
    write_whole(path, safetensors.numpy.save(plain, about), "parity --keep")
    return path


def _plain(x: np.ndarray) -> np.ndarray:
    """NumPy's own types only: bfloat16 as float32, which holds it exactly."""
    return x if x.dtype.kind in "fiub" else x.astype(np.float32)
