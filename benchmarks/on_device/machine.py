"""What is there: the devices that each framework sees, and how exactly they compute."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks.on_device.record import is_there

_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"]


def facts(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """Yield the device as its driver tells it, and every probe of both frameworks in float32 and bfloat16."""
    try:
        said = subprocess.run(_QUERY, capture_output=True, text=True, timeout=15).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = f"not asked: {error}"
    yield {"what": "nvidia-smi", "passed": None, "value": said or "nothing"}
    frameworks = {"torch": is_there("torch"), "flax": is_there("jax")}
    for name, there in frameworks.items():
        if not there:
            yield {"what": name, "passed": None, "value": "not installed"}
    for dtype in ("float32", "bfloat16"):
        for name in (name for name, there in frameworks.items() if there):
            yield from _probed(name, device, dtype)


def _probed(framework: str, device: str, dtype: str) -> Iterator[dict[str, Any]]:
    from parity.checks.environment import check_environment

    try:
        on = {f"{name}_device": device if name == framework else "" for name in ("torch", "flax")}
        found = check_environment(**on, dtype=dtype)  # type: ignore[arg-type]
    except ValueError as error:
        is_tpu = framework == "torch" and device.startswith("tpu")
        yield {"what": f"{framework} on {device}", "passed": None if is_tpu else False, "value": str(error)}
        return
    detail = "; ".join(problem.detail for problem in found.problems)
    yield {"what": f"{framework} in {dtype} on {device}", "passed": found.passed, "value": detail or "as asked for"}
    own = {"torch": "torch", "flax": "jax"}[framework]
    for name, value in found.items.items():
        if name.startswith(own) and (dtype == "float32" or name.endswith(" error")):
            yield {"what": f"{name}, {dtype}", "passed": None, "value": value}
