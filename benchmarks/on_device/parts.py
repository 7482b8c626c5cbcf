"""The parts of a run on a device: what each asks, what it needs, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_PARITY = "benchmarks.on_device.compared:heads"
_SPEED = "benchmarks.on_device.speed:cases"
_BASIC = ("numpy", "ml_dtypes", "safetensors", "threadpoolctl")


@dataclass(frozen=True)
class Part:
    """One part.

    question: that it answers. function: module:name of what yields findings, each a mapping of JSON values with "what"
    and "passed" (None where there is no verdict). needs: packages. seconds: at most. chosen: arguments.
    """

    name: str
    question: str
    function: str
    needs: tuple[str, ...]
    seconds: float
    chosen: dict[str, Any] = field(default_factory=dict)


def _of_each(kind: str, question: str, function: str, seconds: dict[str, float], **chosen: Any) -> list[Part]:
    """A part for each framework."""
    needs = {"torch": (*_BASIC, "torch"), "flax": (*_BASIC, "jax", "flax")}
    return [
        Part(f"{kind}-{name}", f"{question}, {name}", function, needs[name], most, {"framework": name} | chosen)
        for name, most in seconds.items()
    ]


# What matters most comes first, because time may run out. All together: 465 seconds.
PARTS = [
    Part("environment", "what is there, and how exact is it?", "benchmarks.on_device.machine:facts", ("numpy",), 30),
    Part("tests", "do the tests that need a device pass?", "benchmarks.on_device.tests:run", ("numpy", "pytest"), 85),
    *_of_each("speed", "how fast, and in how much memory?", _SPEED, {"torch": 45, "flax": 45}),
    *_of_each("parity-float32", "do all heads agree in float32?", _PARITY, {"torch": 40, "flax": 50}, dtype="float32"),
    *_of_each("parity-bfloat16", "and in bfloat16?", _PARITY, {"torch": 30, "flax": 45}, dtype="bfloat16"),
    *_of_each(
        *("calibration", "how wide must tolerances be?", "benchmarks.on_device.calibrated:sizes"),
        {"torch": 45, "flax": 50},
    ),
]
