"""What the frameworks compute with, measured before any comparison: versions, settings, and probes.

A setting says what was asked for; a probe says what happens. Two probes run in NumPy, torch and jax: a product of
matrices against float64, and arithmetic on denormal numbers.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bigbird_port.installed import version_of

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


def check_environment(
    torch_device: str = "cpu", flax_device: str = "cpu", matmul_precision: str = "highest"
) -> Environment:
    """Return versions, settings and probes of both frameworks on their devices; leaves every setting as it was.

    matmul_precision: what the run will ask of both frameworks ("highest", "high" or "medium", as torch names them),
    and under which the probes run.
    Problems: products of matrices that do not run at full float32 precision (a failure), frameworks that treat
    denormal numbers differently (a warning), and jax with float64 switched on, which changes its types (a warning).
    Raises ValueError for a device that is not there, or an unknown precision.
    """
    if matmul_precision not in _JAX_PRECISIONS:
        raise ValueError(f"matmul_precision is {matmul_precision!r}, expected one of {', '.join(_JAX_PRECISIONS)}")
    items = _versions() | _torch_settings() | _jax_settings() | _variables()
    items |= {"torch device": torch_device, "jax device": flax_device}
    items |= {"matmul precision of the run": matmul_precision}
    problems = []
    probes = {
        "torch": _torch_probes(torch_device, matmul_precision),
        "jax": _jax_probes(flax_device, matmul_precision),
    }
    for name, (matmul, _) in probes.items():
        error = matmul_error(matmul)
        items[f"{name} matmul error"] = f"{error:.1e} (full precision: below {FULL_PRECISION:.0e})"
        problems += matmul_problems(name, error)
    kept = {"numpy": keeps_denormals(np.multiply)}
    kept |= {name: keeps_denormals(multiply) for name, (_, multiply) in probes.items()}
    for name, keeps in kept.items():
        items[f"{name} denormals"] = "kept" if keeps else "flushed to 0"
    return Environment(items, (*problems, *denormal_problems(kept), *_x64_problems(items)))


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
    if items["jax x64"] == "False":
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


def _torch_probes(device: str, precision: str) -> tuple[Matmul, Multiply]:
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"torch has no device {device!r} here: {str(error).partition(chr(10))[0]}") from None

    def run(operation: Callable[[Any, Any], Any]) -> Matmul:
        def apply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision(precision)
            try:
                return operation(*(torch.from_numpy(x).to(device) for x in (a, b))).cpu().numpy()
            finally:
                torch.set_float32_matmul_precision(before)

        return apply

    return run(torch.matmul), run(torch.mul)


def _jax_probes(device: str, precision: str) -> tuple[Matmul, Multiply]:
    import jax

    try:
        place = jax.devices({"cuda": "gpu"}.get(device, device))[0]
    except RuntimeError as error:
        raise ValueError(f"jax has no device {device!r} here: {str(error).partition(chr(10))[0]}") from None

    def run(operation: Callable[[Any, Any], Any]) -> Matmul:
        def apply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            with jax.default_device(place), jax.default_matmul_precision(_JAX_PRECISIONS[precision]):
                return np.asarray(jax.jit(operation)(*(jax.device_put(x, place) for x in (a, b))))

        return apply

    return run(jax.numpy.matmul), run(jax.numpy.multiply)
