"""Devices by name: cpu, cuda or tpu, one of several as cuda:1, and auto for a framework's default.

A name that no device has is refused with the names of those that there are.
"""

from __future__ import annotations

import os
from typing import Any

KINDS = ("cpu", "cuda", "tpu")
_ALIASES = {"gpu": "cuda"}  # jax's word for what torch calls cuda
_PLATFORMS = "JAX_PLATFORMS"


def split_name(name: str) -> tuple[str, int | None]:
    """Return the kind of a device, and its number if the name has one; raises ValueError for what is no such name."""
    kind, colon, number = name.partition(":")
    kind = _ALIASES.get(kind, kind)
    if kind not in KINDS or (colon and not number.isdecimal()):
        raise ValueError(
            f"{name!r} names no device: expected {', '.join(KINDS)} or auto, or one of several such as cuda:1"
        )
    return kind, int(number) if colon else None


def kind_of_device(name: str) -> str:
    """Return the kind of a device: "cuda" of "cuda:1"."""
    return split_name(name)[0]


def torch_device(name: str) -> Any:
    """Return torch's device called ``name``; raises ValueError where torch does not have it."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, number = split_name(name)
    if kind == "tpu":
        raise ValueError(
            f"torch does not run on {name}: give --flax-device {name} in place of --device, and torch stays on the "
            "CPU; or leave torch out with --against flax,reference"
        )
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
    if (f"cuda:{number or 0}" if kind == "cuda" else kind) not in there or (kind == "cpu" and number):
        build = "" if torch.version.cuda or kind == "cpu" else " and is built without CUDA"
        raise ValueError(f"torch has no device {name}: it has {', '.join(there)}{build}; choose --torch-device cpu")
    return torch.device(kind) if number is None or kind == "cpu" else torch.device(kind, number)


def flax_device(name: str) -> Any:
    """Return jax's device called ``name``; raises ValueError where jax does not have it."""
    found = jax_devices(name)
    number = split_name(name)[1] if name != "auto" else None
    return found[number or 0]


def jax_devices(name: str) -> list[Any]:
    """Return all of jax's devices of a name's kind; raises ValueError where the one of that name is not there."""
    kind, number = (None, None) if name == "auto" else split_name(name)
    found = _devices_of(kind)
    if len(found) <= (number or 0):
        there = [f"{one}:{i}" for one in KINDS for i in range(len(_devices_of(one)))]
        raise ValueError(f"jax has no device {name}: it has {', '.join(there) or 'none'}; {_advice(kind, bool(there))}")
    return found


def _advice(kind: str | None, has_any: bool) -> str:
    platforms = os.environ.get(_PLATFORMS)
    if not platforms:
        return "choose --flax-device cpu, or install a jax for the device"
    if not has_any:
        return f"{_PLATFORMS} is {platforms}, and jax starts nothing if one of these is not here: unset it"
    wanted = kind or "cpu"
    return f"{_PLATFORMS} is {platforms}, which hides all others: set {_PLATFORMS}={platforms},{wanted}"


def _devices_of(kind: str | None) -> list[Any]:
    """All of jax's devices of a kind (None: of its default one); none where it cannot start that kind."""
    import jax

    try:
        return list(jax.devices(kind))
    except (RuntimeError, AssertionError):  # the latter where JAX_PLATFORMS names nothing that can start
        return []


def host_device(device: Any) -> Any:
    """Return the device where parameters are read: jax's CPU or, where JAX_PLATFORMS leaves it out, ``device``."""
    return next(iter(_devices_of("cpu")), device)


def may_lack_cpu() -> bool:
    """Whether JAX_PLATFORMS names platforms without the CPU."""
    platforms = os.environ.get(_PLATFORMS, "")
    return bool(platforms) and "cpu" not in platforms.split(",")
