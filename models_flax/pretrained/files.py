"""Weight files: safetensors with the names that transformers' Flax classes give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from bigbird_port.files.reading import check_regular


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write parameters as transformers' Flax classes name them there: with dots."""
    dotted = {name.replace("/", "."): np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors.numpy.save_file(dotted, path, metadata={"format": "flax"})


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read what write_safetensors wrote; raises ValueError for another framework's file of the same name."""
    try:
        check_regular(path)
        with safetensors.safe_open(path, framework="np") as file:
            found = (file.metadata() or {}).get("format")
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors: {error}") from None
    if found != "flax":
        raise ValueError(
            f"{path}: its metadata says format {found!r}, expected 'flax': a torch model's weights are for the "
            "torch class of the same name"
        )
    return {name.replace(".", "/"): array for name, array in arrays.items()}
