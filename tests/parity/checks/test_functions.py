"""Functions are probed against float64: what hardware approximates is told from what rounds."""

import jax
import numpy as np
import pytest
import torch

from parity.checks.environment import check_environment, function_problems
from parity.checks.functions import FUNCTIONS, function_error, function_limit

DTYPES = ("float32", "bfloat16", "float16")


def of_torch(name, dtype):
    return lambda x: getattr(torch, name)(torch.from_numpy(x).to(getattr(torch, dtype))).float().numpy()


def of_jax(name, dtype):
    as_users = {"xla_cpu_use_fusion_emitters": True}  # without these, as in make test, XLA rounds the root, too
    run = jax.jit(lambda x: getattr(jax.lax, name)(x.astype(dtype)), compiler_options=as_users)
    return lambda x: np.asarray(run(x)).astype(np.float32)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_both_frameworks_are_within_the_limit_here(name, dtype):
    for make in (of_torch, of_jax):
        error = function_error(name, make(name, dtype), dtype)
        assert 0.4 < error <= function_limit(name, "cpu", dtype), make


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_approximation_of_eleven_bits_is_caught_on_every_device(name):
    """What tanh.approx of CUDA has; and one of bfloat16's bits where bfloat16 is judged, whose results have no more."""

    def approximate(x):
        return FUNCTIONS[name].exact(x.astype(np.float64)) * (1 + 2.0**-12)

    def coarse(x):
        return of_torch(name, "bfloat16")(x) * (1 + 2.0**-7)

    for device in ("cpu", "cuda", "tpu:0"):
        assert function_error(name, approximate) > 10 * function_limit(name, device)
        assert function_error(name, of_torch(name, "bfloat16")) > 100 * function_limit(name, device)
        assert function_error(name, coarse, "bfloat16") > function_limit(name, device, "bfloat16")


def test_what_is_not_finite_is_infinitely_off():
    assert function_error("exp", lambda x: np.full_like(x, np.nan)) == float("inf")
    assert function_problems("torch", {"exp": float("inf")}, {"exp": 2.0}, "cpu", False)


def test_a_device_may_be_off_by_as_much_as_its_tolerances_are_wider():
    assert function_limit("exp", "cpu") < function_limit("exp", "cuda:1") < function_limit("exp", "tpu")
    assert function_limit("exp", "cpu", "float64") == function_limit("exp", "cpu")


def test_a_wrong_function_fails_the_environment(monkeypatch):
    exp = torch.exp
    monkeypatch.setattr(torch, "exp", lambda x: exp(x) * (1 + 2.0**-12))
    found = check_environment(flax_device="")
    (problem,) = [problem for problem in found.problems if problem.severity == "failure"]
    assert problem.name == "torch exp"
    assert "expected at most 2, on which the tolerances rest" in problem.detail
    assert "bigbird-port parity calibrate --device cpu" in problem.detail
    known = check_environment(flax_device="", calibrated={"cpu"})
    assert known.passed
    assert {problem.name for problem in known.problems} == {"torch exp"}


def test_a_framework_that_takes_no_part_is_not_probed(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda *_: (_ for _ in ()).throw(AssertionError("asked")))
    found = check_environment(flax_device="")
    assert "torch tanh error" in found.items
    assert not any(name.startswith(("jax device", "jax backend")) for name in found.items)
