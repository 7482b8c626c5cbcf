"""A save that is killed at any moment leaves the old state or the new one, never a mixture."""

import os
import shutil
import signal
import sys

import numpy as np
import pytest

from bigbird_port.formats import filling
from bigbird_port.training import saving
from bigbird_port.training.saving import whole_save, write_training
from bigbird_port.training.settings import Training
from bigbird_port.training.state import TrainingState, read_state

MOMENTS = 50
TRACED = (saving.__file__, filling.__file__, shutil.__file__)


def save(folder, step):
    """A state whose every file tells the step."""
    training = Training("AdamWeightDecay", 0.1, 100, 10)
    with whole_save(folder, overwrite=True) as staged:
        write_training(staged, TrainingState(training, step), {"w/m": np.full(1000, step, np.float32)})
        (staged / "config.json").write_text(str(step))


def held(folder):
    """The steps that a folder's files tell."""
    values = np.frombuffer((folder / "training.safetensors").read_bytes()[-4000:], np.float32)
    return {
        read_state(folder / "training.json").global_step,
        int((folder / "config.json").read_text()),
        *map(int, values),
    }


def lines_of(folder):
    """How many lines a save runs through."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename not in TRACED:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    save(folder, 1)
    sys.settrace(None)
    return count


def killed_at(moment, folder):
    """Save step 2 in a process that is killed at a line; whether it was."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = moment

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in TRACED:
            return None
        left -= event == "line"
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    save(folder, 2)
    os._exit(0)


@pytest.mark.slow  # each save waits for the disk
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fifty_kills_leave_one_state_whole(tmp_path):
    folder = tmp_path / "run"
    save(folder, 1)
    total = lines_of(folder)
    assert total > MOMENTS
    outcomes = []
    for moment in np.linspace(1, total, MOMENTS).astype(int):
        save(folder, 1)
        assert killed_at(int(moment), folder)
        (state,) = held(folder)  # one step in all files
        outcomes.append(state)
    assert set(outcomes) == {1, 2}
    assert outcomes == sorted(outcomes)  # old before the exchange, new behind it
    save(folder, 3)
    assert held(folder) == {3}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
