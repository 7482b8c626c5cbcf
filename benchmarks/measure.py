"""What the benchmarks measure with: equality, time, memory, a process for each case, and what the figures depend on.

A case is one call of a subject's function, in a new process that is bound to one processor.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

TOLERANCE = 1e-5
MIB = 2**20
PACKAGES = ("torch", "jax", "jaxlib", "flax", "transformers", "numpy")
Measured = dict[str, Any]
Arrays = Sequence[np.ndarray]
# One thread for every library; XLA's pool follows the processors that the process may use.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "USE_TF": "0",
}
_PROGRAM = "from benchmarks.measure import main; main()"


class DifferentError(Exception):
    """Two sides do not compute the same, so that there is nothing to time."""


def run_alone(function: str, **case: Any) -> Any:
    """Return what ``module:function`` gives in a new process on one processor; raises SystemExit with what it said."""
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, function, json.dumps(case)]
    processor = max(os.sched_getaffinity(0))
    process = subprocess.run(
        command,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {processor}),
    )
    if process.returncode:
        raise SystemExit(f"{process.stderr}{function} {json.dumps(case)} ended with {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])


def check_equal(what: str, ours: Arrays, peer: Arrays) -> float:
    """Return the largest difference; raises DifferentError where one exceeds 1e-5 of the largest value (or of 1)."""
    differences = []
    for a, b in zip(map(np.asarray, ours), map(np.asarray, peer), strict=True):
        if a.shape != b.shape or not a.size:
            raise DifferentError(f"{what}: shapes {a.shape} and {b.shape}")
        difference = float(np.abs(a - b).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(b).max())):  # NaN is no equality
            raise DifferentError(f"{what}: the two differ by {difference}, so there is nothing to time")
        differences.append(difference)
    return max(differences)


def compare_and_time(
    what: str,
    peer: Callable[[], Arrays],
    equal: Mapping[str, Callable[[], Arrays]],
    timed: Mapping[str, Callable[[], object]],
    repeats: int,
    warm: bool = True,
) -> Measured:
    """Check that each of ``equal`` gives what transformers' side gives, then time that side and ``timed`` in turn.

    What is timed runs on the original's random blocks and what is compared on transformers', where block 0 stands for
    each of them: a block that stands in a list again is less work.
    """
    expected = peer()
    differences = [check_equal(f"{what}, {name}", run(), expected) for name, run in equal.items()]
    return {"max_abs_difference": max(differences), **times_in_turn({"peer": peer, **timed}, repeats, warm)}


def times_in_turn(sides: Mapping[str, Callable[[], object]], repeats: int, warm: bool = True) -> Measured:
    """Time all sides in turn, so that drift of the machine meets all: medians and minima, milliseconds of processor.

    warm: let each timed run follow an untimed one of the same side, so that neither pays for memory that the other
    gave back.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            if warm:
                run()
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))
    medians = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return {"repeats": repeats, **medians, **{f"{name}_least_ms": min(values) for name, values in times.items()}}


def resident_mib() -> float:
    """Memory of this process that is resident now."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let peak_mib begin anew."""
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mib() -> float:
    """The most that was resident at once, since the start or forget_peak."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = pathlib.Path("/proc/self/status").read_text("ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def machine() -> Measured:
    """What the figures depend on."""
    described = pathlib.Path("/proc/cpuinfo")  # where there is one, it says more
    lines = described.read_text("utf-8").splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "memory_mib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of all that computes."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def main() -> None:
    """Do what run_alone asks a new process for."""
    module, _, function = sys.argv[1].partition(":")
    try:
        print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))))
    except DifferentError as error:
        raise SystemExit(str(error)) from None
