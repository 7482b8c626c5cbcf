"""What the frameworks compute with, measured before any comparison: versions, settings, and probes.

A setting says what was asked for; a probe says what happens. Two probes run in NumPy, torch and jax: a product of
matrices against float64, and arithmetic on denormal numbers. Functions that devices approximate are probed in torch and
jax (parity/checks/functions.py).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bigbird_port.installed import version_of
from parity.checks.functions import FUNCTIONS, Function, function_error, function_limit
from parity.witnesses.devices import flax_device as find_flax_device
from parity.witnesses.devices import kind_of_device
from parity.witnesses.devices import torch_device as find_torch_device

# The largest error of a product of 256 x 256 standard normal numbers, each relative to the root of the sum of its
# squared terms: float32 makes 256 roundings of 6e-8, which partly cancel (measured: 1.5e-6 in torch, 2.8e-6 in jax and
# NumPy); operands rounded to the 11 bits of TF32 give 1.2e-3, to the 8 of bfloat16 1.0e-2. The limit is in between.
FULL_PRECISION = 3e-5
_SIZE = 256
_JAX_PRECISIONS = {"highest": "highest", "high": "high", "medium": "default"}  # by torch's names
_PACKAGES = ("numpy", "torch", "jax", "jaxlib", "flax", "ml_dtypes", "safetensors", "transformers")
_VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ONEDNN_MAX_CPU_ISA",
              "ONEDNN_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG")  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Something that makes a comparison mean less: a failure where it would fail for no fault of the model's."""

    severity: Literal["failure", "warning"]
    name: str
    detail: str


@dataclass(frozen=True)
class Environment:
    """What a run computes with. items: by name, in order. problems: what is wrong with them."""

    items: dict[str, str]
    problems: tuple[Problem, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed; warnings pass."""
        return all(problem.severity != "failure" for problem in self.problems)


Matmul = Callable[[np.ndarray, np.ndarray], np.ndarray]
Multiply = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Probes:
    """What is probed of a framework on its device: operations, and functions by name."""

    device: str
    matmul: Matmul
    multiply: Multiply
    functions: dict[str, Function]


def check_environment(
    torch_device: str = "cpu",
    flax_device: str = "cpu",
    matmul_precision: str = "highest",
    dtype: str = "float32",
    calibrated: Collection[str] = (),
) -> Environment:
    """Return versions, settings and probes of both frameworks on their devices; leaves every setting as it was.

    A device that is empty belongs to a framework that takes no part, and is not probed. matmul_precision: what the run
    will ask of both frameworks ("highest", "high" or "medium", as torch names them), and under which the probes run.
    dtype: in which functions are probed. calibrated: kinds of devices with tolerances of their own, which need not be
    like the CPU.
    Problems: products of matrices that do not run at full float32 precision, and functions beyond what the tolerances
    rest on (failures), frameworks that treat denormal numbers differently (a warning), and jax with float64 switched
    on, which changes its types (a warning).
    Raises ValueError for a device that is not there, or an unknown precision.
    """
    if matmul_precision not in _JAX_PRECISIONS:
        raise ValueError(f"matmul_precision is {matmul_precision!r}, expected one of {', '.join(_JAX_PRECISIONS)}")
    probes: dict[str, Probes] = {}
    items, settings = _versions(), dict[str, str]()
    if torch_device:
        probes["torch"] = _torch_probes(torch_device, matmul_precision, dtype)
        settings |= _torch_settings()
    if flax_device:
        probes["jax"] = _jax_probes(flax_device, matmul_precision, dtype)
        settings |= _jax_settings()
    items |= settings | _variables()
    items |= {f"{name} device": one.device for name, one in probes.items()}
    items |= {"matmul precision of the run": matmul_precision}
    problems = []
    for name, one in probes.items():
        error = matmul_error(one.matmul)
        items[f"{name} matmul error"] = f"{error:.1e} (full precision: below {FULL_PRECISION:.0e})"
        problems += matmul_problems(name, error)
        errors = {function: function_error(function, run, dtype) for function, run in one.functions.items()}
        limits = {function: function_limit(function, one.device, dtype) for function in errors}
        for function, error in errors.items():
            items[f"{name} {function} error"] = f"{error:.2g} ulp of {dtype} (at most {limits[function]:.2g})"
        problems += function_problems(name, errors, limits, one.device, kind_of_device(one.device) in calibrated)
    kept = {"numpy": keeps_denormals(np.multiply)}
    kept |= {name: keeps_denormals(one.multiply) for name, one in probes.items()}
    for name, keeps in kept.items():
        items[f"{name} denormals"] = "kept" if keeps else "flushed to 0"
    return Environment(items, (*problems, *denormal_problems(kept), *_x64_problems(items)))


def function_problems(
    name: str, errors: dict[str, float], limits: dict[str, float], device: str, calibrated: bool
) -> list[Problem]:
    """Return a problem for each function that is off by more than its limit: a failure, unless tolerances know it."""
    found = []
    for function, error in errors.items():
        if not error <= limits[function]:
            detail = (
                f"{function} is off by {error:.3g} units in the last place on {device}, expected at most "
                f"{limits[function]:.2g}, on which the tolerances rest: switch fast mathematics off, or measure the "
                f"device: bigbird-port parity calibrate --device {kind_of_device(device)} --out FILE"
            )
            found.append(Problem("warning" if calibrated else "failure", f"{name} {function}", detail))
    return found


def matmul_error(matmul: Matmul) -> float:
    """Return the largest error of a float32 product, relative to the root of the sum of its squared terms.

    matmul: takes and returns float32 [256, 256]. NaN if the product is not finite.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((_SIZE, _SIZE)).astype(np.float32) for _ in range(2))
    exact, size = a.astype(np.float64) @ b, np.sqrt(np.square(a.astype(np.float64)) @ np.square(b))
    found = np.asarray(matmul(a, b), np.float64)
    return float((np.abs(found - exact) / size).max())


def matmul_problems(name: str, error: float) -> list[Problem]:
    """Return a failure if the error of a product is not that of full float32 precision."""
    if error <= FULL_PRECISION:
        return []
    advice = {
        "torch": "torch.set_float32_matmul_precision('highest'), and no TF32 or oneDNN fpmath mode",
        "jax": "jax.default_matmul_precision('highest')",
    }
    detail = f"products of matrices are off by {error:.1e}, expected at most {FULL_PRECISION:.0e}: set {advice[name]}"
    return [Problem("failure", f"{name} matmul precision", detail)]


def keeps_denormals(multiply: Multiply) -> bool:
    """Return whether products that are denormal float32 numbers, and products of such numbers, are not 0."""
    least_normal = np.full(64, np.finfo(np.float32).tiny)
    halves, doubles = np.full(64, 0.5, np.float32), np.full(64, 2, np.float32)
    denormal = least_normal * halves
    return bool((multiply(least_normal, halves) == denormal).all() and (multiply(denormal, doubles) != 0).all())


def denormal_problems(kept: dict[str, bool]) -> list[Problem]:
    """Return a warning if some keep denormal numbers and others do not."""
    if len(set(kept.values())) <= 1:
        return []
    keeping, flushing = (", ".join(name for name, keeps in kept.items() if keeps == wanted) for wanted in (True, False))
    detail = f"{keeping} keeps numbers below {np.finfo(np.float32).tiny:.1e}, {flushing} makes them 0"
    return [Problem("warning", "denormals", detail)]


def _x64_problems(items: dict[str, str]) -> list[Problem]:
    if items.get("jax x64", "False") == "False":
        return []
    return [Problem("warning", "jax x64", "float64 is on, so that numbers without a type become float64 in jax")]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    return found | {name: version_of(name) or "absent" for name in _PACKAGES}


def _torch_settings() -> dict[str, str]:
    import torch

    settings: dict[str, Any] = {
        "default dtype": torch.get_default_dtype(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "cuda matmul tf32": torch.get_float32_matmul_precision() != "highest",
        "cudnn available": torch.backends.cudnn.is_available(),
        "cuda available": torch.cuda.is_available(),
        "mkldnn": f"available {torch.backends.mkldnn.is_available()}, enabled {torch.backends.mkldnn.enabled}",
        "mkl available": torch.backends.mkl.is_available(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": f"{torch.get_num_threads()} intra-op, {torch.get_num_interop_threads()} inter-op",
    }
    build = {"torch": torch.__version__}  # names what it was built for, which the package's metadata may not
    return build | {f"torch {name}": str(value) for name, value in settings.items()}


def _jax_settings() -> dict[str, str]:
    import jax

    config: Any = jax.config  # its settings are attributes that type checkers do not see
    settings = {
        "default matmul precision": config.jax_default_matmul_precision,
        "x64": config.jax_enable_x64,
        "backend": jax.default_backend(),
        "devices": ", ".join(map(str, jax.devices())),
    }
    return {f"jax {name}": str(value) for name, value in settings.items()} | {"cpu count": str(os.cpu_count())}


def _variables() -> dict[str, str]:
    return {name: os.environ.get(name, "not set") for name in _VARIABLES}


def _torch_probes(device: str, precision: str, dtype: str) -> Probes:
    import torch

    place, kind = find_torch_device(device), getattr(torch, dtype)

    def run(operation: Callable[..., Any], dtype: Any = torch.float32) -> Callable[..., np.ndarray]:
        def apply(*arrays: np.ndarray) -> np.ndarray:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision(precision)
            try:
                found = operation(*(torch.from_numpy(x).to(place).to(dtype) for x in arrays))
            finally:
                torch.set_float32_matmul_precision(before)
            array: np.ndarray = (found if found.dtype == torch.float64 else found.float()).cpu().numpy()
            return array

        return apply

    functions = {name: run(getattr(torch, name), kind) for name in FUNCTIONS}
    return Probes(device, run(torch.matmul), run(torch.mul), functions)


def _jax_probes(device: str, precision: str, dtype: str) -> Probes:
    import jax

    place = find_flax_device(device)
    # without wide types jax has no float64: its functions are probed as float32's, which are judged alike
    kind = "float32" if dtype == "float64" else dtype

    def run(operation: Callable[..., Any], dtype: str = "float32") -> Callable[..., np.ndarray]:
        def converted(*arrays: Any) -> Any:  # widened outside of the program, in which XLA need not round
            return operation(*(x.astype(dtype) for x in arrays))

        def apply(*arrays: np.ndarray) -> np.ndarray:
            with jax.default_device(place), jax.default_matmul_precision(_JAX_PRECISIONS[precision]):
                found = jax.jit(converted)(*(jax.device_put(x, place) for x in arrays))
            return np.asarray(found).astype(np.float32)

        return apply

    functions = {name: run(getattr(jax.lax, name), kind) for name in FUNCTIONS}
    return Probes(device, run(jax.numpy.matmul), run(jax.numpy.multiply), functions)
