"""A run on several devices: what is split as the weights are, what is whole, and what processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from models_torch.pretrained.files import to_tensor
from models_torch.sharding import fully_sharded, tensor_parallel

_DROPPED = {"row": -1, "column": -2}  # the axis of the weight that a factor is the mean over


def split(model: Any, mesh: Any) -> None:
    """Split a model over a mesh of models_torch.sharding, in place: by FSDP2 over "data", by heads over "model".

    Raises ValueError for a model that has no plan of its splits.
    """
    if not hasattr(model, "scores_at"):
        raise ValueError(f"mesh: there is no plan of how a {type(model).__name__} is split: leave mesh out")
    if mesh["model"].size() > 1:
        tensor_parallel(model, mesh)
    fully_sharded(model, mesh)


def like(values: np.ndarray, parameter: Tensor, kind: str) -> Tensor:
    """Return a slot where its parameter is, and split as it is; a copy."""
    tensor = to_tensor(values).to(parameter.device, copy=True)
    if not isinstance(parameter, DTensor):
        return tensor
    places = [_without(place, parameter.ndim, kind) for place in parameter.placements]
    return distribute_tensor(tensor, parameter.device_mesh, places, src_data_rank=None)


def _without(place: Any, axes: int, kind: str) -> Any:
    """How a slot is split whose weight of so many axes is split as ``place`` says."""
    if kind not in _DROPPED or not isinstance(place, Shard):
        return place
    dropped = axes + _DROPPED[kind]
    return Replicate() if place.dim == dropped else Shard(place.dim - (place.dim > dropped))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its parts; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def several() -> bool:
    """Whether there are several processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def average(tensors: Iterable[Tensor]) -> None:
    """Take the mean of each tensor over the processes, in place."""
    for x in tensors:
        distributed.all_reduce(x)
        x /= distributed.get_world_size()


def by_one_process(work: Callable[[], None]) -> None:
    """Have the first process do some work, and the others wait; where it fails, all raise."""
    if not several():
        return work()
    error: Exception | None = None
    if distributed.get_rank() == 0:
        try:
            work()
        except Exception as raised:  # told to those who wait
            error = raised
    told = [str(error) if error else ""]
    distributed.broadcast_object_list(told, src=0)
    if error or told[0]:
        raise error or ValueError(told[0])
    return None
