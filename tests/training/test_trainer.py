"""Runs trainer_client.py in a process without TensorFlow, which Trainer does not like beside a new Keras."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CLIENT = "tests/training/trainer_client.py"


@pytest.mark.peer
def test_trainer_goes_on_as_the_original():
    for name in ("transformers", "accelerate"):
        pytest.importorskip(name)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", CLIENT],
        env=os.environ | {"USE_TF": "0", "USE_FLAX": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert "3 passed" in run.stdout
