"""docs/scaling.md: its tables are what the command prints, its programs run."""

import os
import re
import subprocess
import sys

import pytest

from benchmarks import communication
from bigbird_port.conversion.convert import convert
from tests.conftest import DEMO, ROOT
from tests.models.test_flax_sharding import FORCED

TEXT = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
FLAX, TORCH = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_tables_are_what_the_command_prints(capsys):
    communication.main()
    printed = capsys.readouterr().out
    for table in (communication.sequence_table(), communication.other_table()):
        assert table in printed
        assert table in TEXT


@pytest.fixture
def folder(tmp_path):
    convert(DEMO, tmp_path / "out")
    return tmp_path


def run(folder, *command, **environment):
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_flax_program_runs(folder):
    checked = (
        "assert len(value.devices()) == 8 and value > 0\n"
        "assert all(float(abs(x).max()) >= 0 for x in jax.tree.leaves(gradient))\n"
    )
    run(folder, sys.executable, "-c", FLAX + checked, **FORCED)


@pytest.mark.slow
def test_the_torch_program_runs(folder):
    (folder / "train.py").write_text(TORCH)
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "train.py")
    losses = re.findall(r"loss (\d+\.\d+)", run(folder, *command, OMP_NUM_THREADS="1"))
    assert len(losses) == 4
    assert len(set(losses)) == 2  # one of each pair's texts
