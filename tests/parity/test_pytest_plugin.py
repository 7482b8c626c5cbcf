"""The fixture gates a checkpoint in another project's tests, and costs nothing where it is not used."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points

import pytest

from bigbird_port.conversion.manifest import self_digest
from parity.measure.baseline import save
from tests.conftest import ROOT
from tests.parity.small_results import run

TESTS = """
def test_good(bigbird_parity):
    bigbird_parity({out!r}, head="base", length=40, batch=1, witnesses=("torch", "reference"))

def test_returns_the_result(bigbird_parity):
    result = bigbird_parity({out!r}, head=["base"], length=40, batch=1, witnesses=("torch", "reference"))
    assert result.passed and result.heads == ["base"]

def test_wrong(bigbird_parity):
    bigbird_parity({wrong!r}, head="base", length=40, batch=1, witnesses=("torch", "reference"))

def test_grown(bigbird_parity):
    bigbird_parity({out!r}, head="base", baseline={baseline!r}, batch=1, witnesses=("torch", "reference"))

def test_bad_input(bigbird_parity):
    bigbird_parity({out!r}, head="nose")
"""


@pytest.fixture(scope="module")
def project(converted, tmp_path_factory):
    """The tests of another project, run in a process of their own: its output, and its folder of reports."""
    folder, out = tmp_path_factory.mktemp("project"), converted("mini-pretrain")
    wrong = shutil.copytree(out, folder / "wrong")
    manifest = json.loads((wrong / "manifest.json").read_text())
    manifest["tensors"]["pooler.bias"]["sha256"] = "0" * 64
    (wrong / "manifest.json").write_text(json.dumps(manifest | {"digest": self_digest(manifest)}))
    baseline = folder / "baseline.json"
    save([run(out, heads=("base",), seed=seed) for seed in (0, 1)], baseline)
    values = json.loads(baseline.read_text())
    for entry in values["figures"]:
        if entry["tap"] == "layer.0.key":
            entry.update(typical=1e-9, max=1e-9, spread=0.1)
    baseline.write_text(json.dumps(values))
    texts = {"out": str(out), "wrong": str(wrong), "baseline": str(baseline)}
    (folder / "test_checkpoint.py").write_text(TESTS.format(**texts))
    installed = entry_points(group="pytest11", name="bigbird_parity")  # pytest loads it by itself then
    plugin = () if installed else ("-p", "parity.pytest_plugin")
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir"]
    command += [str(folder), "--bigbird-parity-html", str(folder / "html"), "-rA", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)
    return done, folder / "html"


def test_good_checkpoints_pass_and_wrong_ones_fail(project):
    done, _ = project
    verdicts = {line.split("::")[-1].split(" ")[0]: line.split()[0] for line in done.stdout.splitlines()
                if line.startswith(("PASSED ", "FAILED ")) and "::" in line}  # fmt: skip
    assert verdicts == {
        **dict.fromkeys(("test_good", "test_returns_the_result"), "PASSED"),
        **dict.fromkeys(("test_wrong", "test_grown", "test_bad_input"), "FAILED"),
    }
    assert done.returncode == 1


def test_a_failure_shows_the_report(project):
    done, folder = project
    assert "FAIL torch weights: 1 of 46 differ: pooler.bias" in done.stdout
    assert "over 1 of 1 heads, 0 failed" in done.stdout
    assert f"report: {folder / 'test_checkpoint.py-test_wrong.html'}" in done.stdout
    assert "grew: base" not in done.stdout
    assert "baseline.json: base, 1x528, torch against reference, accumulated, layer.0.key: error" in done.stdout
    assert "unknown head 'nose'" in done.stdout


def test_every_use_writes_a_page(project):
    _, folder = project
    names = {path.name.removeprefix("test_checkpoint.py-test_") for path in folder.iterdir()}
    assert names == {"good.html", "returns_the_result.html", "wrong.html", "grown.html"}
    assert "✗ FAILED" in (folder / "test_checkpoint.py-test_wrong.html").read_text()


def test_pytest_finds_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"bigbird_parity": "parity.pytest_plugin"}


def test_the_plugin_imports_nothing_but_pytest():
    program = (
        "import sys, pytest; before = set(sys.modules); import parity.pytest_plugin; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert set(done.stdout.split()) == {"parity", "parity.pytest_plugin"}
