"""Weight files, what stands between arrays and tensors, and where tensors are put."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bigbird_port.files.casting import float_type
from bigbird_port.files.sizes import parse_size
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.safetensors.writer import SafetensorsFormat

_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # device maps that accelerate works out
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


def place_of(device_map: Any) -> Callable[[Any], Any]:
    """What puts a model where ``device_map`` says."""
    if device_map is None:
        return lambda model: model
    if isinstance(device_map, dict) and list(device_map) == [""]:
        device_map = device_map[""]
    if isinstance(device_map, (int, torch.device)) or (isinstance(device_map, str) and device_map not in _SPREAD):
        try:
            device = torch.device(device_map)
        except RuntimeError as error:
            raise ValueError(
                f"device_map is {device_map!r}, expected a device such as 'cuda:0', or 'auto': {error}"
            ) from None
        return lambda model: model.to(device)
    if importlib.util.find_spec("accelerate") is None:
        raise ValueError(
            f"device_map={device_map!r} needs accelerate, which is not installed: run 'pip install accelerate', or "
            "give one device, such as device_map='cuda:0'"
        )
    accelerate = importlib.import_module("accelerate")

    def spread(model: nn.Module) -> Any:
        whole = {
            "no_split_module_classes": [
                "BigBirdLayer",
                "BigBirdPegasusEncoderLayer",
                "BigBirdPegasusDecoderLayer",
            ]
        }
        memory = None if isinstance(device_map, dict) else accelerate.utils.get_balanced_memory(model, **whole)
        places = accelerate.infer_auto_device_map(model, max_memory=memory, **whole) if memory else device_map
        return accelerate.dispatch_model(model, places)

    return spread
