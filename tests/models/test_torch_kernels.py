"""The Triton kernels: interpreted on a CPU against float64, compiled for devices that are not there, and left out."""

import json
import os
import subprocess
import sys

import pytest
import torch

from models_torch.attention import kernels
from tests.conftest import ROOT

LIMIT = 1e-5
needs_triton = pytest.mark.skipif(not kernels.installed(), reason="Triton is not there: pip install bigbird-port[cuda]")
CONTROLLED = "inside a block"
CASES = (CONTROLLED, "blocks of 64", "padding, repeats", "packed", "an odd block and head", "two tiles to a block")


def run(module, *arguments, **environment):
    """What a program prints, as JSON: Triton reads its settings when it is imported."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.models.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_triton
@pytest.mark.quick(CONTROLLED)
@pytest.mark.parametrize("case", CASES)
def test_interpreted_kernels_give_what_float64_gives(case):
    results = run("kernel_cases", case, TRITON_INTERPRET="1")
    found = results[case]
    assert found["calls"] == 1  # the kernels ran
    assert max(found["errors"]) < LIMIT
    assert min(found["largest"]) > 0.1
    assert found["same bits again"]
    assert max(found["gathered"]) < LIMIT  # the option that leaves kernels out
    if case == CONTROLLED:
        assert min(results["control"]["errors"]) > 0.1  # one block changed in one list of each


# sm_80's matrix units take operands from registers, where the gradient's tiles take more; nothing is spilled anywhere.
REGISTERS = {80: {"attend": 128, "of_queries": 184, "of_keys": 224}, 90: {}, 100: {}}
ALL_REGISTERS = 255


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "dtype", "precision"),
    [(80, "bf16", "ieee"), (90, "bf16", "ieee"), (100, "bf16", "ieee"), (90, "fp32", "ieee"), (90, "fp32", "tf32")],
)
def test_compiled_kernels_stay_in_registers_and_use_matrix_units(arch, dtype, precision, tmp_path):
    found = run("compiled_kernels", str(arch), dtype, precision, TRITON_CACHE_DIR=str(tmp_path))
    assert len(found) == 3
    for name, used in found.items():
        assert used["reg"] <= (REGISTERS[arch].get(name, 128) if dtype == "bf16" else ALL_REGISTERS), (name, used)
        assert used["stack"] == used["local"] == used["spills"] == 0, (name, used)
        assert (used["matrix"] > 0) == (dtype != "fp32" or precision != "ieee"), (name, used)


def qkv(dtype=torch.float32, H=64):
    return (torch.zeros(1, 2, 64, H, dtype=dtype) for _ in range(2))


def test_kernels_run_only_what_they_compute(monkeypatch):
    monkeypatch.setattr(kernels, "installed", lambda: True)
    monkeypatch.setattr(kernels, "_runs_on", lambda device: True)
    assert kernels.suit(*qkv(), 64)
    assert kernels.suit(*qkv(torch.bfloat16), 16)
    assert not kernels.suit(*qkv(), 8)  # narrower than a tile of the matrix units
    assert not kernels.suit(*qkv(torch.float64), 64)
    assert not kernels.suit(*qkv(H=512), 64)
    q, _ = qkv()
    assert not kernels.suit(q, torch.zeros(1, 2, 64, 64 * 2), 64)  # values that are wider, as for probabilities
    monkeypatch.setattr(kernels, "installed", lambda: False)
    assert not kernels.suit(*qkv(), 64)


def test_a_cpu_runs_no_kernels(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not kernels.suit(*qkv(), 64)
