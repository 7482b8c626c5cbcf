import logging
import subprocess
import sys
import threading
import time

import ml_dtypes
import numpy as np
import orbax.checkpoint
import pytest

from bigbird_port.formats.flax.orbax_writer import write_orbax
from bigbird_port.formats.flax.tree import nested
from tests.formats.execute import numbered


def parameters():
    return {
        "bert/encoder/layer/0/attention/self/query/kernel": numbered("f4", 3, 5),
        "bert/encoder/layer/1/attention/self/query/kernel": numbered("f4", 3, 5, start=40),
        "bert/pooler/bias": numbered(ml_dtypes.bfloat16, 7),
        "half": numbered("f2", 2, 1, 3),
        "scalar": numbered("f4"),
    }


def assert_same_tree(found, expected):
    assert isinstance(expected, dict) == isinstance(found, dict)
    if not isinstance(expected, dict):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        return np.testing.assert_array_equal(found, expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert_same_tree(found[key], value)


def test_plain_orbax_restores_it(tmp_path, caplog):
    before = set(threading.enumerate())
    with caplog.at_level(logging.WARNING):
        write_orbax(tmp_path / "checkpoint", parameters())
    assert not caplog.records
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "checkpoint")
    assert_same_tree(restored, nested(parameters()))
    deadline = time.monotonic() + 10  # an idle worker thread takes a moment to end
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def test_it_says_nothing(tmp_path):
    """No warning, no line of logging, in a process as a user's."""
    program = "import sys; from pathlib import Path; import numpy as np\n" \
              "from bigbird_port.formats.flax.orbax_writer import write_orbax\n" \
              "write_orbax(Path(sys.argv[1]), {'a/b': np.arange(6.0)})\n"  # fmt: skip
    command = [sys.executable, "-W", "error", "-c", program, tmp_path / "checkpoint"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("", "")
    assert (tmp_path / "checkpoint/_METADATA").is_file()


@pytest.mark.parametrize("arrays", [{"a": np.zeros((0, 2), "f4"), "b": np.zeros(1, "f4")}, {}])
def test_what_it_cannot_hold_is_named(tmp_path, arrays):
    with pytest.raises(ValueError, match="no empty array: (a$|there is nothing)"):
        write_orbax(tmp_path / "checkpoint", arrays)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ValueError, match="checkpoint: exists already"):
        write_orbax(tmp_path / "checkpoint", parameters())
    assert not list((tmp_path / "checkpoint").iterdir())
