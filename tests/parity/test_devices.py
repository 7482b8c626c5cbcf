"""Devices by name: one of several is taken, an absent one is refused before anything runs, with what there is."""

import os
import subprocess
import sys

import jax
import pytest
import torch
from click.testing import CliRunner

from bigbird_port.cli import main
from parity.measure.calibration import calibrate as calibrations
from parity.run.conditions import Options
from parity.witnesses import devices
from parity.witnesses.witness import Setting
from tests.conftest import ROOT


class Device:
    """A device of jax that is not there."""

    def __init__(self, platform, number):
        self.platform, self.id = platform, number


def jax_with(monkeypatch, **kinds):
    """Let jax have so many devices of each kind; without any it fails as it does for JAX_PLATFORMS=cuda."""
    there = {kind: [Device({"cuda": "gpu"}.get(kind, kind), i) for i in range(n)] for kind, n in kinds.items()}

    def find(kind=None):
        if not there:
            raise AssertionError
        if kind is not None and kind not in there:
            raise RuntimeError(f"Unknown backend {kind}")
        return there[kind or next(iter(there))]

    monkeypatch.setattr(jax, "devices", find)
    return there


@pytest.fixture
def two_gpus(monkeypatch):
    """Let torch and jax believe in two of them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return jax_with(monkeypatch, cuda=2, cpu=1)


def test_one_of_several_is_taken(two_gpus):
    assert devices.torch_device("cuda:1") == torch.device("cuda", 1)
    assert devices.torch_device("cuda") == devices.torch_device("auto") == torch.device("cuda")
    assert devices.torch_device("cpu") == devices.torch_device("cpu:0") == torch.device("cpu")
    assert devices.flax_device("cuda:1") is devices.flax_device("gpu:1") is two_gpus["cuda"][1]
    assert devices.flax_device("auto") is two_gpus["cuda"][0]
    settings = Options(torch_device="cuda:1", flax_device="auto").settings
    assert (settings["torch"].device, settings["flax"].device) == ("cuda:1", "cuda")
    assert settings["torch"].kind == settings["flax"].kind == "cuda"
    assert settings["reference"] == Setting("float64", "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"torch_device": "cuda:2"}, "torch has no device cuda:2: it has cpu, cuda:0, cuda:1"),
        ({"flax_device": "cuda:2"}, "jax has no device cuda:2: it has cpu:0, cuda:0, cuda:1"),
        ({"flax_device": "tpu"}, "jax has no device tpu: it has cpu:0, cuda:0, cuda:1"),
        ({"torch_device": "tpu"}, "torch does not run on tpu: give --flax-device tpu in place of --device"),
        ({"torch_device": "cuda:one"}, "'cuda:one' names no device"),
        ({"flax_device": "cuda:1", "mesh": {"data": 2}}, "--mesh takes all devices of a kind: give cuda, not cuda:1"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(two_gpus, options, message):
    with pytest.raises(ValueError, match=message):
        _ = Options(**options).settings


def test_float64_on_a_tpu_is_refused_with_the_reason(monkeypatch):
    jax_with(monkeypatch, tpu=4, cpu=1)
    options = Options(flax_device="tpu:0", dtype="float64", witnesses=("flax", "reference"))
    with pytest.raises(ValueError, match=r"a TPU has no float64.*choose --dtype float32, or --flax-device cpu"):
        _ = options.settings
    assert Options(flax_device="tpu:3", witnesses=("flax", "reference")).settings["flax"].device == "tpu:3"


def test_jax_without_a_cpu(monkeypatch):
    """JAX_PLATFORMS=tpu: parameters are read on the TPU; who asks for the CPU is told what to set."""
    tpu = jax_with(monkeypatch, tpu=1)["tpu"][0]
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    assert devices.host_device(tpu) is tpu
    with pytest.raises(ValueError, match=r"jax has no device cpu: it has tpu:0; .*set JAX_PLATFORMS=tpu,cpu"):
        _ = Options(torch_device="cpu", flax_device="cpu").settings
    _ = Options(witnesses=("torch", "reference")).settings  # which asks jax for nothing
    cpu = jax_with(monkeypatch, tpu=1, cpu=1)["cpu"][0]
    assert devices.host_device(tpu) is cpu


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--torch-device", "cuda:0"], "torch has no device cuda:0: it has cpu"),
        (["--device", "tpu:0"], "torch does not run on tpu:0: give --flax-device tpu:0 in place of --device"),
        (["--flax-device", "tpu:1", "--against", "flax,reference"], "jax has no device tpu:1: it has cpu:0"),
        (["--flax-device", "nosuch"], "'nosuch' names no device: expected cpu, cuda, tpu or auto"),
    ],
)
def test_the_command_refuses_before_anything_runs(arguments, message, monkeypatch):
    monkeypatch.setattr("bigbird_port.cli.parity.convert_demo", lambda out: pytest.fail("something ran"))
    jax_with(monkeypatch, cpu=1)
    result = CliRunner().invoke(main, ["parity", *arguments])
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_platforms_that_cannot_start_are_named():
    """jax says nothing but AssertionError then."""
    command = [sys.executable, "-m", "bigbird_port", "parity", "--flax-device", "cuda", "--against", "flax,reference"]
    found = subprocess.run(
        command, env=os.environ | {"JAX_PLATFORMS": "cuda"}, capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert found.returncode == 2, found.stderr
    assert "jax has no device cuda: it has none; JAX_PLATFORMS is cuda, and jax starts nothing" in found.stderr
    assert "Traceback" not in found.stderr


def test_calibration_takes_the_frameworks_that_run_on_a_device(monkeypatch):
    assert calibrations.on_device("tpu:0") == ("flax",)
    assert calibrations.on_device("cuda:1") == calibrations.on_device("cpu") == ("torch", "flax")
    assert calibrations.on_device("cuda", ["torch"]) == ("torch",)
    jax_with(monkeypatch, tpu=1, cpu=1)
    said, measured = [], []
    monkeypatch.setattr(calibrations, "measure_samples", lambda *given: measured.append(given) or [])
    calibrations.calibrate(devices=["tpu"], report=said.append)
    assert said == ["torch does not run on tpu, and is left out"]
    assert len(measured) == 1
    with pytest.raises(ValueError, match="torch does not run on tpu"):
        calibrations.calibrate(devices=["tpu"], witnesses=["torch"])
    with pytest.raises(ValueError, match="jax has no device cuda: .*give --framework"):
        calibrations.calibrate(devices=["tpu", "cuda"], witnesses=["flax"])
    assert len(measured) == 1, "what is not there is refused before anything is measured"


def test_calibration_by_framework():
    command = ["parity", "calibrate", "--device", "cuda", "--framework", "torch"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "torch has no device cuda: it has cpu" in result.output
