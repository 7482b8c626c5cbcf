"""Weight files, and what stands between arrays and tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigbird_port.files.casting import float_type
from bigbird_port.files.sizes import parse_size
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.safetensors.writer import SafetensorsFormat

_SINGLE, _PICKLED = "model.safetensors", "pytorch_model.bin"
# what a reader would find in place of what is written
_STALE = re.compile(r"(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?")


def to_tensor(array: np.ndarray) -> Tensor:
    """Return an array as a tensor of its own; bfloat16, which NumPy knows as an extension only, by its bits."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.require(array, requirements="W"))


def to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values as an array, which may share its memory; the reverse of to_tensor."""
    values = tensor.detach().cpu().contiguous()
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().view(float_type("bfloat16"))
    return values.numpy()


def write_folder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    max_shard_size: int | str,
    save: Callable[[Any, Any], Any] | None = None,
) -> None:
    """Write config.json (its values) and the weights, in as many shards as max_shard_size asks for.

    A tensor larger than that has a shard of its own. save: writes them as pytorch_model.bin; None is safetensors.
    """
    try:
        limit = parse_size(max_shard_size)
        form = SafetensorsFormat({"format": "pt"}, _SINGLE, limit)
    except ValueError as error:
        raise ValueError(f"max_shard_size: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        if _STALE.fullmatch(stale.name):
            stale.unlink()
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    if save is None:
        write_arrays(folder, form, {name: to_array(tensor) for name, tensor in tensors.items()})
    else:
        _write_pickled(folder, tensors, limit, save)


def _write_pickled(folder: Path, tensors: Mapping[str, Tensor], limit: int, save: Callable[[Any, Any], Any]) -> None:
    """Write pytorch_model.bin, or its shards with an index."""
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and _bytes(shards[-1].values()) + tensor.nbytes > limit:
            shards.append({})
        shards[-1][name] = tensor.detach().cpu()
    if len(shards) == 1:
        save(shards[0], folder / _PICKLED)
        return
    places: dict[str, str] = {}
    for i, shard in enumerate(shards):
        file = f"pytorch_model-{i + 1:05}-of-{len(shards):05}.bin"
        save(shard, folder / file)
        places |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": _bytes(tensors.values())}, "weight_map": places}
    (folder / f"{_PICKLED}.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)
