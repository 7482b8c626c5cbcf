"""parity --mesh: Flax on several devices against one device and the reference, in a process of its own."""

import json
import os
import subprocess
import sys

import jax
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from parity.faults.mesh import MESH_FAULTS
from tests.conftest import ROOT

MAIN = "from bigbird_port.cli import main; main()"
WITH_FAULT = f"""
from parity.faults.mesh import MESH_FAULTS
fault, = (fault for fault in MESH_FAULTS if fault.name == "partial softmaxes are not summed")
import os; os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
with fault.inject():
    {MAIN}
"""


def run(*arguments, program=MAIN):
    environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, "parity", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def sharded_rows(file):
    return [row for row in json.loads(file.read_text())["rows"] if row["value"] == "sharded"]


@pytest.mark.slow
def test_a_mesh_is_the_same_model(converted, tmp_path):
    file, mesh = tmp_path / "found.json", "data=2,model=2,sequence=2"
    done = run(converted("mini-pretrain"), "--head", "masked-lm", "--no-local", "--mesh", mesh, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.splitlines()[-1]
    assert line.startswith(f"mesh {mesh} (8 devices) against reference and one device: ")
    assert line.endswith("; 0 failed")
    rows = sharded_rows(file)
    for reference in ("reference", "flax"):
        found = {(row["error"], row["tap"]) for row in rows if row["reference"] == reference}
        assert {
            ("accumulated", "layer.0.output"),
            ("accumulated", "layer.1.output"),
            ("accumulated", "logits"),
        } <= found
        assert ("gradient", "grad.encoder.layer.0.attention.self.key.kernel") in found
        assert ("gradient", "grad.embeddings.word_embeddings.embedding") in found
    assert json.loads(file.read_text())["environment"]["mesh"] == line


@pytest.mark.slow
def test_every_fault_of_a_mesh_is_caught(converted, tmp_path):
    file = tmp_path / "found.json"
    arguments = ("--head", "qa", "--mesh", "model=2,sequence=4", "--with-faults", "--json", file)
    done = run(converted("mini-pretrain"), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    detection = json.loads(file.read_text())["detection"]
    assert [row["fault"] for row in detection] == [fault.name for fault in MESH_FAULTS]
    assert all(row["caught"] for row in detection)


def test_a_fault_fails_the_run(converted, tmp_path):
    file = tmp_path / "found.json"
    arguments = ("--head", "qa", "--no-local", "--no-losses", "--mesh", "sequence=2", "--json", file)
    done = run(converted("mini-pretrain"), *arguments, program=WITH_FAULT)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [row["tap"] for row in sharded_rows(file) if not row["passed"]]
    assert failed[0] == "layer.0.context"


@pytest.mark.parametrize(
    ("mesh", "batch", "message"),
    [
        ("model=3", 2, "num_attention_heads is 2, which model=3 does not divide: choose a model axis among 1, 2"),
        ("data=4", 2, "batch is 2, which data=4 does not divide"),
    ],
)
def test_sizes_that_do_not_divide(converted, mesh, batch, message):
    done = run(converted("mini-pretrain"), "--mesh", mesh, "--batch", batch)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mesh", "data"], "is not a list of mesh axes and sizes"),
        (["--mesh", "data=2,data=4"], "is not a list of mesh axes and sizes"),
        (["--mesh", "tensor=2"], "expected data, model, sequence"),
        (["--mesh", "model=0"], "each of size 1 or more"),
        (["--with-faults"], "--with-faults injects the faults of a --mesh"),
        (["--against", "sharded,reference"], "the witness sharded needs a mesh"),
        (["--mesh", "data=512"], "jax runs already"),
    ],
)
def test_what_is_no_mesh(arguments, message, converted):
    assert jax.device_count() < 512  # and it runs already
    done = CliRunner().invoke(main, ["parity", str(converted("mini-pretrain")), *arguments])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
