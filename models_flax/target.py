"""How a program runs follows from the device that it is lowered for, wherever it is traced.

A program that a TPU or GPU will run may be traced on a machine that has none, and a machine with a GPU may run one on
its CPU. So no code asks for the process's own backend.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeVar

import jax
from jax import lax

from bigbird_port.sparse.formulation import FORMULATIONS, Formulation, exported

Choice = TypeVar("Choice")
Result = TypeVar("Result")
_KERNELS: ContextVar[bool] = ContextVar("kernels", default=False)
_LOWERED_AS = {"gpu": ("cuda", "rocm")}  # jax has one name for such devices, and another for what it lowers to


@contextmanager
def with_kernels() -> Iterator[None]:
    """While it lasts, programs are traced with the kernels of devices that this process does not have.

    So a program is compiled for a TPU on a machine without one. What was traced before stays as it is.
    """
    before = _KERNELS.set(True)
    try:
        yield
    finally:
        _KERNELS.reset(before)


def by_target(
    choose: Callable[[Formulation], Choice],
    run: Callable[..., Result],
    *arrays: Any,
    how: Formulation | None = None,
) -> Result:
    """Return run(choice, *arrays), where ``choose`` makes the choice from the formulation of the target.

    run: a function of a module, whose choice can be hashed. how: a formulation to take wherever the program runs; an
    exported one has its own.

    Where devices differ in their choice, each way is traced, and the one of the target is lowered: programs of other
    devices do not hold it. Devices that choose alike share one. A device type without an entry runs as the CPU does.
    Kernels take seconds to trace, so they are traced in a process that has a TPU, and under ``with_kernels`` alone.
    """
    how = how or exported()
    if how is not None:
        return run(choose(how), *arrays)
    traced = _KERNELS.get() or jax.default_backend() == "tpu"
    ways = {name: how for (framework, name), how in FORMULATIONS.items() if framework == "flax"}
    choices = {name: choose(how if traced else replace(how, kernels=False)) for name, how in ways.items()}
    usual = choices["cpu"]
    others = {name: choice for name, choice in choices.items() if choice != usual}
    if not others:
        return run(usual, *arrays)
    if platform := _holder(arrays):
        return run(others.get(platform, usual), *arrays)
    once = {choice: functools.partial(_traced_once(run), choice) for choice in others.values()}
    lowered = {kind: once[choice] for name, choice in others.items() for kind in _LOWERED_AS.get(name, (name,))}
    return lax.platform_dependent(*arrays, **lowered, default=functools.partial(run, usual))


@functools.cache
def _traced_once(run: Callable[..., Result]) -> Callable[..., Result]:
    """``run``, traced once for all layers of the same shapes: most programs never run these ways."""
    return jax.jit(run, static_argnums=0)


def _holder(arrays: Any) -> str | None:
    """The type of the device that holds the arrays, where operations run one by one; None where they are traced."""
    leaves = jax.tree.leaves(arrays)
    if any(isinstance(x, jax.core.Tracer) for x in (*leaves, jax.numpy.add(0, 0))):
        return None
    return next((device.platform for x in leaves if isinstance(x, jax.Array) for device in x.devices()), None)
