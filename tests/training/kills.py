"""Run by test_saving.py: python -m tests.training.kills FOLDER MOMENTS [--without-exchange].

run.save over an earlier save, killed at moments spread over all lines that it runs through; prints what was left each
time: "old" or "new", or either "found again" by resume. Raises where it is neither, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.formats import filling
from bigbird_port.training import saving
from bigbird_port.training.carried import Asked
from models_torch.pretrained import files
from models_torch.training import resume
from models_torch.training import run as runs
from tests.training.steps import MINI, steps_of

TRACED = {module.__file__ for module in (saving, filling, files, runs, shutil)}


def tree(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def traced(on_line) -> None:
    """Call a function for each line that is run in the files that save."""

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            on_line()
        return trace

    sys.settrace(trace)


def lines_of(run, folder: Path) -> int:
    count = 0

    def add() -> None:
        nonlocal count
        count += 1

    traced(add)
    run.save(folder, overwrite=True)
    sys.settrace(None)
    return count


def killed(run, folder: Path, moment: int) -> bool:
    """Save in a process that is killed at a line; whether it was."""
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = moment

    def fall() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    traced(fall)
    run.save(folder, overwrite=True)
    os._exit(0)


def main(place: Path, moments: int, exchange: bool) -> list[str]:
    if not exchange:
        saving.exchange_names = lambda first, second: False
    steps = steps_of(MINI)
    convert(steps.checkpoint, place / "out", Settings(to=("torch",), training=Asked()))
    run = resume(place / "out", loss_style="original")
    run.save(place / "old")
    run.train_step(steps.batch(1))
    run.save(place / "new")
    known = {"old": tree(place / "old"), "new": tree(place / "new")}
    folder = place / "run" / "here"
    shutil.copytree(place / "old", folder)
    total = lines_of(run, folder)
    assert total > moments
    left = []
    last = moments // 2  # that many lines one by one, where names change; the others spread over all before
    spread = np.linspace(1, total - last, moments - last).astype(int)
    for moment in (*spread, *range(total - last + 1, total + 1)):
        shutil.rmtree(folder)
        shutil.copytree(place / "old", folder)
        assert killed(run, folder, int(moment)), moment
        lost = not folder.exists()
        step = resume(folder).step  # which finds the state, whole
        (which,) = (name for name, files in known.items() if tree(folder) == files)
        assert step == {"old": 10, "new": 11}[which]
        left.append(f"{which}, found again" if lost else which)
    run.save(folder, overwrite=True)
    assert tree(folder) == known["new"]
    assert [path.name for path in folder.parent.iterdir()] == ["here"]
    return left


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), "--without-exchange" not in sys.argv)))  # noqa: T201
