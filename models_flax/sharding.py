"""One model on many devices: a mesh, and what of parameters and inputs stands on which device.

Under ``jax.set_mesh(make_mesh(...))`` the models run as they are: attention by attention/sequence.py, everything else
partitioned by XLA.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import unflatten_dict
from jax import Array
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from bigbird_port.devices.partition import MESH_AXES, described, mesh_sizes, partitions
from bigbird_port.families.bigbird.config import BigBirdConfig

Params = dict[str, Any]


def make_mesh(data: int = 1, model: int = 1, sequence: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh of data x model x sequence devices (None: the first there are, in jax's order).

    data: splits texts; model: heads, inner units and vocabulary; sequence: blocks of positions. Raises ValueError for
    a size below 1, and where there are fewer devices.
    """
    sizes = mesh_sizes({"data": data, "model": model, "sequence": sequence})
    found, wanted = list(jax.devices() if devices is None else devices), math.prod(sizes.values())
    if len(found) < wanted:
        raise ValueError(
            f"a mesh {described(sizes)} wants {wanted} devices, found {len(found)}: choose smaller axes (on the CPU, "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={wanted} makes as many, set before jax is imported)"
        )
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), types, devices=found[:wanted])


def current_mesh() -> AbstractMesh | None:
    """The mesh that jax.set_mesh holds, if it has this module's axes and XLA partitions over them; else None."""
    mesh = jax.sharding.get_abstract_mesh()
    ours = mesh.axis_names == MESH_AXES and mesh.are_all_axes_auto
    return mesh if ours else None


def partition_specs(config: BigBirdConfig, head: str, sizes: Mapping[str, int]) -> Params:
    """Return a PartitionSpec for every parameter of a head's model, as bigbird_port.devices.partition's table has it.

    sizes: of the mesh axes. Raises ValueError naming the size of the model that an axis does not divide.
    """
    found = {row.flax: PartitionSpec(*axes) for row, axes in partitions(config, head, "flax", sizes)}
    return unflatten_dict(found, sep="/")


def shard_params(params: Params, config: BigBirdConfig, head: str, mesh: Mesh) -> Params:
    """Return ``params`` with each device of ``mesh`` holding its part; raises ValueError as partition_specs."""
    specs = partition_specs(config, head, mesh.shape)
    return jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), params, specs)


def shard_inputs(inputs: Mapping[str, ArrayLike], mesh: Mesh) -> dict[str, Array]:
    """Return a batch of arrays [B, ...] with each device of ``mesh`` holding its texts.

    All positions of them: ids are small, and attention pads to whole blocks for each device. Raises ValueError where
    the data axis does not divide B.
    """
    for name, x in inputs.items():
        B, pieces = jax.numpy.shape(x)[0], mesh.shape["data"]
        if B % pieces:
            raise ValueError(
                f"{name} holds {B} texts, which data={pieces} does not divide: add texts of padding, or choose another "
                "data axis"
            )
    return {name: jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))) for name, x in inputs.items()}


def placed(x_BLD: Array) -> Array:
    """Return hidden states with texts and positions on the devices they belong to; as they are without a mesh.

    Compiled code only. Positions that the sequence axis does not divide stay together between the layers' attention:
    XLA (jax 0.10.2) computes a wrong gradient of the first one where it splits them unevenly.
    """
    mesh = current_mesh()
    if mesh is None or not isinstance(x_BLD, jax.core.Tracer):
        return x_BLD
    even = x_BLD.shape[1] % mesh.shape["sequence"] == 0
    return jax.lax.with_sharding_constraint(x_BLD, PartitionSpec("data", "sequence" if even else None))
