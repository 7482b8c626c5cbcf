"""``parity OUT --mesh``: Flax on a mesh of devices is the same model as on one."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from parity.reports.report import Report
    from parity.run.conditions import Options
    from parity.run.results import Result

_FORCE = "--xla_force_host_platform_device_count"


class MeshSizes(click.ParamType):
    """Sizes of mesh axes: data=2,model=2,sequence=2."""

    name = "mesh"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        """Return the size of every axis, 1 where none is given."""
        from bigbird_port.devices.partition import mesh_sizes

        if isinstance(value, dict):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",")]
        names = [name for name, _, _ in pairs]
        if not all(size.isdecimal() for _, _, size in pairs) or len(set(names)) < len(names):
            self.fail(f"{value!r} is not a list of mesh axes and sizes, such as data=2,model=2,sequence=2", param, ctx)
        try:
            return mesh_sizes({name: int(size) for name, _, size in pairs})
        except ValueError as error:
            self.fail(str(error), param, ctx)


def mesh_options(options: dict[str, Any], heads: Sequence[str]) -> dict[str, Any]:
    """Return parity's options for a run on a mesh: Flax on it, Flax on one device and the reference, with gradients.

    On the CPU, as many host devices are made as the mesh has. Witnesses that were chosen replace Flax on one device.
    Where none of the heads has a loss, gradients are compared only if they are asked for.
    """
    from parity.measure.losses import has_loss

    if (options["flax_device"] or options["device"] or "cpu") == "cpu":
        force_host_devices(math.prod(options["mesh"].values()))
    against = options["against"] or ("flax", "reference")
    gradients = options["gradients"] or any(map(has_loss, heads))
    return options | {"against": (*against, "sharded"), "gradients": gradients}


def force_host_devices(count: int) -> None:
    """Have jax make ``count`` devices of this host when it starts; raises ValueError where it runs with fewer."""
    if "jax" in sys.modules:
        import jax

        if len(jax.devices("cpu")) < count:
            raise ValueError(
                f"jax runs already, with {len(jax.devices('cpu'))} devices: set XLA_FLAGS={_FORCE}={count}"
            )
        return
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_FORCE)]
    os.environ["XLA_FLAGS"] = " ".join([*flags, f"{_FORCE}={count}"])


def with_faults(found: Report, out: Path, options: Options, say: Callable[[str], None]) -> Report:
    """Return a report with what of the mesh's faults was caught, each injected for the first head that has a loss.

    say: is told which faults are not injected, and why.
    """
    from dataclasses import replace

    from parity.faults.mesh import detect, not_possible
    from parity.measure.losses import has_loss

    heads = found.result.heads
    head = next(filter(has_loss, heads), heads[0])
    for name, why in not_possible(head, options):
        say(f"fault not injected: {name}: {why}")
    return replace(found, detection=list(detect(out, head, options)))


def missed(found: Report) -> bool:
    """Whether an injected fault was not caught."""
    return any(not row["caught"] for row in found.detection or ())


def mesh_line(result: Result, mesh: dict[str, int]) -> str:
    """Say in one line what of a mesh was compared with what."""
    from bigbird_port.devices.partition import described

    rows = [row for row in result.rows if row.value == "sharded"]
    others = list(dict.fromkeys(row.reference for row in rows))
    kinds = {"accumulated": "taps", "local": "taps on the reference's input", "loss": "losses", "gradient": "gradients"}
    counted = {name: sum(row.error == error for row in rows) for error, name in kinds.items()}
    failed = sum(not row.passed for row in rows)
    return (
        f"mesh {described(mesh)} ({math.prod(mesh.values())} devices) "
        f"against {' and '.join({'flax': 'one device'}.get(name, name) for name in others) or 'nothing'}: "
        f"{', '.join(f'{count} {name}' for name, count in counted.items() if count)}; {failed} failed"
    )
