"""Faults of a mesh: what the devices exchange is made wrong on purpose, and the comparison must fail.

Each fault replaces a function of models_flax/attention/sequence.py for a while.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bigbird_port.devices.exchange import Exchange
from parity.measure.losses import has_loss
from parity.run.conditions import Options
from parity.run.results import Error, Row
from parity.run.run import run_parity

Function = Callable[..., Any]


@dataclass(frozen=True)
class MeshFault:
    """name: what goes wrong. axis: the mesh axis that must have two devices or more for it. path: of the function that
    ``wrap`` replaces. error: the rows that must fail.
    """

    name: str
    axis: str
    path: str
    wrap: Callable[[Function], Function]
    error: Error = "accumulated"

    @contextmanager
    def inject(self) -> Iterator[None]:
        """Keep the fault in while the context lasts. JAX forgets before and after what it compiled."""
        import jax

        module = importlib.import_module("models_flax.attention.sequence")
        jax.clear_caches()
        try:
            with mock.patch.object(module, self.path, self.wrap(getattr(module, self.path))):
                yield
        finally:
            jax.clear_caches()


def _in_exchange(change: Callable[[Exchange], Exchange]) -> Callable[[Function], Function]:
    return lambda make: lambda *arguments: change(make(*arguments))


def _other_shared_block(exchange: Exchange) -> Exchange:
    shared = exchange.shared.copy()
    shared[len(shared) // 2] += 1
    return replace(exchange, shared=shared)


def _shared_block_of_next_device(exchange: Exchange) -> Exchange:
    s, _, b, _ = exchange.key_blocks.shape
    shared = exchange.shared.copy()
    shared[len(shared) // 2] = (shared[len(shared) // 2] + b) % (s * b)
    return replace(exchange, shared=shared)


def _neighbours_swapped(exchange: Exchange) -> Exchange:
    b, blocks = exchange.key_blocks.shape[2], exchange.key_blocks
    return replace(exchange, key_blocks=np.select((blocks == b, blocks == b + 1), (b + 1, b), blocks))


def _lists_of_other_heads(exchange: Exchange) -> Exchange:
    return replace(exchange, **{name: np.roll(getattr(exchange, name), 1, axis=1) for name in ("key_blocks", "live")})


def _not_summed(combined: Function) -> Function:
    def own(largest: Any, weights: Any, values: Any) -> Any:
        return values / weights

    return own


def _not_scaled(combined: Function) -> Function:
    def without_largest(largest: Any, weights: Any, values: Any) -> Any:
        return combined(0 * largest, weights, values)

    return without_largest


def _gradient_lost(copies: Function) -> Function:
    def stopped(*arguments: Any, **keywords: Any) -> Any:
        import jax

        return jax.lax.stop_gradient(copies(*arguments, **keywords))

    return stopped


MESH_FAULTS = (
    MeshFault("a shared block is its neighbour", "sequence", "make_exchange", _in_exchange(_other_shared_block)),
    MeshFault(
        "a random block comes from the wrong device",
        "sequence",
        "make_exchange",
        _in_exchange(_shared_block_of_next_device),
    ),
    MeshFault("the neighbours' blocks are exchanged", "sequence", "make_exchange", _in_exchange(_neighbours_swapped)),
    MeshFault("partial softmaxes are not summed", "sequence", "_combined", _not_summed),
    MeshFault("partial softmaxes are not scaled alike", "sequence", "_combined", _not_scaled),
    MeshFault("shared blocks get no gradient from other devices", "sequence", "_copies", _gradient_lost, "gradient"),
    MeshFault("key lists of another device's heads", "model", "make_exchange", _in_exchange(_lists_of_other_heads)),
)


def not_possible(head: str, options: Options) -> Iterator[tuple[str, str]]:
    """Yield each fault that this mesh or head cannot have, and why."""
    for fault in MESH_FAULTS:
        if (options.mesh or {}).get(fault.axis, 1) < 2:
            yield fault.name, f"the mesh has no {fault.axis} axis of 2 or more"
        elif fault.error == "gradient" and not has_loss(head):
            yield fault.name, f"it is one of gradients, and {head} has no loss"


def detect(out: Path, head: str, options: Options) -> Iterator[dict[str, Any]]:
    """Run parity with each fault that the mesh can have; yield the fault, and where it was caught, if it was.

    As the rows of a detection matrix (parity/reports/report.py). A head without a loss has no gradients to be wrong.
    Raises ValueError where the mesh can have none.
    """
    left_out = {name for name, _ in not_possible(head, options)}
    faults = [fault for fault in MESH_FAULTS if fault.name not in left_out]
    if not faults:
        raise ValueError("no fault of the catalogue is possible here: it wants a sequence or model axis of 2 or more")
    options = replace(options, witnesses=("reference",), local=False, losses=False)
    for fault in faults:
        with fault.inject():
            rows = run_parity(out, (head,), replace(options, gradients=fault.error == "gradient")).rows
        yield _detection(fault, head, [row for row in rows if row.value == "sharded" and row.error == fault.error])


def _detection(fault: MeshFault, head: str, rows: list[Row]) -> dict[str, Any]:
    first = next((row for row in rows if not row.passed), None)
    excess = None if first is None else first.difference.excess
    return {
        "fault": fault.name,
        "head": head,
        "caught": first is not None,
        "changes": True,
        "tap": first and first.tap,
        "factor": excess if excess is not None and np.isfinite(excess) else None,
    }
