"""A run on several devices: what is split as the weights are, and what is whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from models_flax.sharding import shard_inputs, shard_params

Params = dict[str, Any]
_DROPPED = {"row": -1, "column": -2}  # the axis of the weight that a factor is the mean over


def split(model: Any, mesh: Any) -> Params:
    """Return a model's parameters, split over a mesh of models_flax.sharding.

    Raises ValueError for a model that has no plan of its splits.
    """
    if not hasattr(model.module, "scores_at"):
        raise ValueError(f"mesh: there is no plan of how a {type(model).__name__} is split: leave mesh out")
    return shard_params(model.params, model.config, model.head, mesh)


def split_batch(batch: Any, mesh: Any) -> Any:
    """Return a batch, or several, with each device holding its texts; as they are without a mesh."""
    if mesh is None:
        return batch
    if isinstance(batch, Mapping):
        return shard_inputs(batch, mesh)
    return [shard_inputs(part, mesh) for part in batch]


def like(values: np.ndarray, parameter: Array, kind: str) -> Array:
    """Return a slot where its parameter is, and split as it is."""
    if not isinstance(parameter.sharding, NamedSharding):
        return jnp.asarray(values)
    axes = list(parameter.sharding.spec) + [None] * (parameter.ndim - len(parameter.sharding.spec))
    if kind in _DROPPED:
        del axes[_DROPPED[kind]]
    return jax.device_put(values, NamedSharding(parameter.sharding.mesh, PartitionSpec(*axes)))


def whole(array: Array) -> np.ndarray:
    """Return an array with all its parts; raises ValueError where other machines hold some."""
    if not array.is_fully_addressable:
        raise ValueError("the run is spread over several processes: save run.state by Orbax, which gathers it")
    return np.asarray(array)
