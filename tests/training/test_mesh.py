"""Flax on two devices of one host: the mean of the original's recorded gradients, and slots split as weights are."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.training.steps import steps_of

FORCED = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


@pytest.mark.slow  # compiles for two devices
@pytest.mark.parametrize("case", ["recorded", "split"])
def test_two_devices(case, tmp_path):
    steps_of("from-zero")  # skips where it is absent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.training.mesh_cases", case, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | FORCED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
