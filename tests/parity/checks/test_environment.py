"""Probes tell full precision from less, and see what flushes denormal numbers."""

import jax
import numpy as np
import pytest
import torch

from parity.checks.environment import (
    FULL_PRECISION,
    check_environment,
    denormal_problems,
    keeps_denormals,
    matmul_error,
    matmul_problems,
)


@pytest.fixture
def settings_stay():
    """What the check may not change, before and after."""

    def read():
        return (
            torch.get_float32_matmul_precision(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            jax.config.jax_default_matmul_precision,
            jax.config.jax_enable_x64,
        )

    before = read()
    yield
    assert read() == before


def test_this_machine_computes_at_full_precision(settings_stay):
    found = check_environment()
    assert found.passed, found.problems
    assert found.items["torch"] == torch.__version__
    assert found.items["jax"] == jax.__version__
    for name in ("torch matmul error", "jax matmul error", "torch float32 matmul precision", "jax x64", "XLA_FLAGS"):
        assert name in found.items
    assert all(isinstance(value, str) for value in found.items.values())


def test_settings_of_the_caller_are_reported_and_stay():
    torch.set_float32_matmul_precision("medium")
    try:
        found = check_environment()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.items["torch float32 matmul precision"] == "medium"
    assert found.items["matmul precision of the run"] == "highest"


def rounded(x, bits):
    """Float32 numbers with ``bits`` bits of significand: 11 for TF32, 8 for bfloat16."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 2**bits), exponent - bits).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 11])
def test_operands_of_fewer_bits_are_caught(bits):
    error = matmul_error(lambda a, b: rounded(a, bits) @ rounded(b, bits))
    assert error > 10 * FULL_PRECISION
    (problem,) = matmul_problems("jax", error)
    assert (problem.severity, problem.name) == ("failure", "jax matmul precision")
    assert "jax.default_matmul_precision('highest')" in problem.detail


@pytest.mark.parametrize(
    "product", [lambda a, b: a @ b, lambda a, b: (b.T @ a.T).T, lambda a, b: np.einsum("ij,jk", a, b)]
)
def test_float32_in_any_order_passes(product):
    assert 1e-8 < matmul_error(product) < FULL_PRECISION / 5


def test_a_product_that_is_not_finite_fails():
    assert matmul_problems("torch", matmul_error(lambda a, b: np.full_like(a, np.nan)))


def test_a_framework_that_computes_in_bfloat16_fails_the_check(monkeypatch):
    """What TPUs and some CPUs do by default, simulated by a jax whose product rounds its operands."""

    def matmul(a, b):
        return jax.lax.dot(a.astype(jax.numpy.bfloat16), b.astype(jax.numpy.bfloat16)).astype(jax.numpy.float32)

    monkeypatch.setattr(jax.numpy, "matmul", matmul)
    found = check_environment()
    assert not found.passed
    assert [problem.name for problem in found.problems if problem.severity == "failure"] == ["jax matmul precision"]


def test_the_same_for_torch(monkeypatch):
    monkeypatch.setattr(torch, "matmul", lambda a, b: (a.bfloat16() @ b.bfloat16()).float())
    found = check_environment()
    assert [problem.name for problem in found.problems if problem.severity == "failure"] == ["torch matmul precision"]


def test_denormals_are_measured():
    assert keeps_denormals(np.multiply)
    assert not keeps_denormals(lambda a, b: np.where(np.abs(a * b) < np.finfo(np.float32).tiny, 0, a * b))
    assert not keeps_denormals(lambda a, b: np.where(np.abs(a) < np.finfo(np.float32).tiny, 0, a) * b)
    torch.set_flush_denormal(True)
    try:
        assert check_environment().items["torch denormals"] == "flushed to 0"
    finally:
        torch.set_flush_denormal(False)
    assert check_environment().items["torch denormals"] == "kept"


def test_denormals_are_a_problem_only_where_frameworks_differ():
    assert denormal_problems({"a": True, "b": True}) == denormal_problems({"a": False, "b": False}) == []
    (problem,) = denormal_problems({"numpy": True, "jax": False})
    assert problem.severity == "warning"
    assert problem.detail.startswith("numpy keeps")


def test_x64_is_a_warning():
    with jax.enable_x64(True):
        assert "jax x64" in {problem.name for problem in check_environment().problems}
    assert "jax x64" not in {problem.name for problem in check_environment().problems}


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"'nosuch' names no device: expected cpu, cuda, tpu or auto"):
        check_environment(flax_device="nosuch")
    with pytest.raises(ValueError, match=r"torch has no device cuda:99: it has cpu"):
        check_environment(torch_device="cuda:99")
    with pytest.raises(ValueError, match=r"matmul_precision is 'low', expected one of highest, high, medium"):
        check_environment(matmul_precision="low")
