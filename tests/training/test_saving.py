"""A save that is killed at any moment leaves the old state or the new one, never a mixture: kill -9, byte for byte."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

MOMENTS = 50


def left_by(folder, *options):
    """What kills left, in a process that is safe to fork."""
    command = [sys.executable, "-m", "tests.training.kills", str(folder), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow  # each save waits for the disk
@pytest.mark.parametrize("options", [(), ("--without-exchange",)], ids=["exchange", "two renames"])
def test_fifty_kills_leave_one_state_whole(options, tmp_path):
    left = left_by(tmp_path, str(MOMENTS), *options)
    assert len(left) == MOMENTS
    assert set(left) == {"old", "new", *(["old, found again"] if options else [])}
    kept = [state.partition(",")[0] for state in left]
    assert kept == sorted(kept, reverse=True)  # old before the exchange, new behind it
