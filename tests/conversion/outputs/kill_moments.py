"""Replace an output again and again, killed at one line of the code after the other.

    python kill_moments.py FOLDER MODE STRIDE

MODE is "exchange", or "two-steps" as where names cannot be exchanged; every STRIDEth line is a moment. Prints how many
moments left which output.
"""

import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

from bigbird_port.conversion.manifest import write_manifest
from bigbird_port.files.outputs import output
from bigbird_port.files.outputs.out_folder import check_out, left_over, listed_files, strangers
from bigbird_port.files.outputs.output import whole_folder

TRACED = (output.__file__, output.exchange_names.__code__.co_filename, shutil.__file__)
FILES = ("torch/a", "torch/b", "flax/c")


def fill(folder, text):
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    files = {
        target: {"files": [{"name": name.partition("/")[2]} for name in FILES if name.startswith(target)]}
        for target in ("torch", "flax")
    }
    write_manifest(folder / "manifest.json", {"targets": files})


def replace(out, text):
    with whole_folder(out, overwrite=True) as staged:
        fill(staged, text)


def killed_at(moment, out):
    """Replace ``out`` in a process of its own that is killed at a moment; whether it was, or had ended."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = moment

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    replace(out, "new")
    sys.settrace(None)
    os._exit(0)


def state(out):
    """Whether an output is whole, and which; what is said of an absent one."""
    if not out.exists():
        try:
            check_out(out)
        except ValueError as error:
            assert "get it back" in str(error), error
            assert "set it aside, whole" in left_over(out)
            return "absent, and said where"
        return "absent"
    assert not strangers(out, listed_files(out))
    texts = {(out / name).read_text() for name in FILES}
    assert len(texts) == 1, texts
    return texts.pop()


def main(place, mode, stride):
    os.fsync = lambda descriptor: None  # of no use against a kill, and slow
    if mode == "two-steps":
        output.exchange_names = lambda first, second: False
    counts, moment, out = Counter(), 1, place / "out"
    while True:
        out.mkdir()
        fill(out, "old")
        killed = killed_at(moment, out)
        counts[state(out)] += 1
        replace(out, "after")
        assert state(out) == "after"
        assert os.listdir(place) == ["out"], os.listdir(place)
        shutil.rmtree(out)
        if not killed:
            break
        moment += stride
    sys.stdout.write(repr(dict(counts)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
