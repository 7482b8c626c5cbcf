"""Flax on a mesh of eight forced host devices equals Flax on one: tests/models/mesh_cases.py, in its own process."""

import os
import socket
import subprocess
import sys

import pytest

FORCED = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize("case", ["refused", "padded_batch", "volume", "models"])
@pytest.mark.quick("refused", "volume")
def test_a_mesh_equals_one_device(case):
    command = [sys.executable, "-W", "error", "-m", "tests.models.mesh_cases", case]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | FORCED)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_mesh_over_two_processes_equals_one_device():
    """As over two hosts: each has four devices, and keys go from one to the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | FORCED | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-W", "error", "-m", "tests.models.mesh_hosts", str(port)]
    running = [subprocess.Popen([*command, rank], stderr=subprocess.PIPE, env=environment) for rank in "01"]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
