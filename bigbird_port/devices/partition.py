"""Which axis of a weight is split over which axis of a mesh of devices.

It is one table. Flax's partition specs and torch's plan both follow from it.

A mesh has three axes: "data" (texts), "model" (attention heads, inner units, vocabulary) and "sequence" (blocks of
positions; it splits no weight).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.schema.layout import parse_axes
from bigbird_port.schema.table import Framework, Weight, dims, weights_of

MESH_AXES = ("data", "model", "sequence")
# Axis of the schema -> mesh axis that splits it. For a group such as (heads head_dim) the first axis counts. It is the
# outermost, so a piece holds whole attention heads.
SPLIT = {"heads": "model", "inner": "model", "vocab": "model"}
# These stay whole where the mesh axis does not divide them. That costs only memory. A vocabulary may have any size.
MAY_STAY_WHOLE = frozenset({"vocab"})


def mesh_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the size of every mesh axis, in the order of MESH_AXES; an axis that is not given has size 1.

    In this order, neighbours along "sequence" are neighbours among the devices. Raises ValueError for an unknown name
    or a size below 1.
    """
    for name, size in sizes.items():
        if name not in MESH_AXES or size < 1:
            raise ValueError(f"mesh axis {name}={size}: expected {', '.join(MESH_AXES)}, each of size 1 or more")
    return {name: sizes.get(name, 1) for name in MESH_AXES}


def described(sizes: Mapping[str, int]) -> str:
    """Return the sizes of a mesh as the command line takes them: data=2,model=2,sequence=2."""
    return ",".join(f"{name}={size}" for name, size in sizes.items())


def check_sizes(config: BigBirdConfig, sizes: Mapping[str, int], batch: int | None = None) -> None:
    """Raise ValueError naming the size of the model, or of the batch, that a mesh axis does not divide."""
    needed = {axis: size for axis, size in dims(config).items() if axis in SPLIT and axis not in MAY_STAY_WHOLE}
    wanted = [(str(config.family.axes[axis]), size, SPLIT[axis]) for axis, size in needed.items()]
    if batch is not None:
        wanted.append(("batch", batch, "data"))
    for name, size, mesh_axis in wanted:
        pieces = sizes.get(mesh_axis, 1)
        if size % pieces:
            raise ValueError(
                f"{name} is {size}, which {mesh_axis}={pieces} does not divide: choose a {mesh_axis} axis among "
                f"{', '.join(str(d) for d in range(1, size + 1) if size % d == 0)}, or another {name}"
            )


def partition(axes: str, config: BigBirdConfig, sizes: Mapping[str, int]) -> tuple[str | None, ...]:
    """Return, for each axis of a weight laid out as ``axes``, the mesh axis that splits it; None if it stays whole."""
    found: list[str | None] = []
    for first, *_ in parse_axes(axes):
        mesh_axis = SPLIT.get(first)
        stays = first in MAY_STAY_WHOLE and dims(config)[first] % sizes.get(mesh_axis or "", 1)
        found.append(None if stays else mesh_axis)
    return tuple(found)


def partitions(
    config: BigBirdConfig, head: str, framework: Framework, sizes: Mapping[str, int]
) -> Iterator[tuple[Weight, tuple[str | None, ...]]]:
    """Yield each weight of a head's class with its partition, in the layout of ``framework``.

    Raises ValueError as check_sizes does.
    """
    check_sizes(config, sizes)
    for row in weights_of(config, head, framework):
        yield row, partition(row.torch_axes if framework == "torch" else row.flax_axes, config, sizes)
