"""Where the golden data is, and checkpoints converted once for all tests."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import hypothesis
import pytest

import bigbird_port
from bigbird_port.conversion.convert import convert

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("BIGBIRD_PORT_SHARED", ROOT.parent / "shared"))
DEMO = Path(bigbird_port.__file__).parent / "demo_checkpoint"
FOLDERS = ("mini-pretrain", "tiny-pretrain", "tiny-pretrain-bert-names", "tiny-block16", "tiny-classifier")
PEGASUS = ("mini-pegasus", "tiny-pegasus", "tiny-pegasus-released-like", "tiny-coupled")
PRENORM = "prenorm-bert"
# Converted, BERT's names give the bytes that the current ones give (tests/conversion/test_convert.py).
MODELS = tuple(name for name in FOLDERS if name != "tiny-pretrain-bert-names")


@dataclasses.dataclass(frozen=True)
class Golden:
    """A checkpoint of the original code and its evaluations."""

    name: str
    checkpoint: Path
    cases: tuple[Path, ...]

    @property
    def present(self) -> bool:
        return self.checkpoint.is_dir()


def find_golden(name: str) -> Golden:
    """The mini ones come with the project; the others are beside it in shared/ and may be absent."""
    if name == "mini-pretrain":
        checkpoint, cases = DEMO, ROOT / "parity/given/original"
    elif name == "mini-pegasus":
        checkpoint, cases = ROOT / "tests/golden/mini-pegasus", ROOT / "tests/golden/mini-pegasus/cases"
    else:
        checkpoint = SHARED / "golden" / name
        cases = SHARED / "golden" / _CASES_OF.get(name, name) / "cases"
    return Golden(name, checkpoint, tuple(sorted(cases.glob("*.safetensors"))))


# Folders with the weights of another, whose cases hold for them.
_CASES_OF = {"tiny-pretrain-bert-names": "tiny-pretrain", "tiny-pegasus-released-like": "tiny-pegasus"}
GOLDEN = {name: find_golden(name) for name in (*FOLDERS, *PEGASUS, PRENORM)}
CASES = [
    pytest.param(name, case, id=f"{name}-{case.stem}")
    for name in MODELS
    for case in (GOLDEN[name].cases or [Path("absent")])
]


def require(golden: Golden) -> Golden:
    """Skip the test, saying why, where a golden folder is absent."""
    if not golden.present:
        pytest.skip(f"{golden.checkpoint} is not there: only the mini ones come with the project")
    return golden


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """Return a function: name of a golden folder -> the folder that convert wrote (made once, not to be changed)."""
    folder, done = tmp_path_factory.mktemp("converted"), set()

    def get(name: str) -> Path:
        golden, out = require(GOLDEN[name]), folder / name
        if name not in done:
            convert(golden.checkpoint, out)
            done.add(name)
        return out

    return get


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Of a test marked ``quick``, only the cases that the mark names run in ``make test``; the others are slow."""
    unnamed = {}
    for item in items:
        if mark := item.get_closest_marker("quick"):
            test = item.nodeid.partition("[")[0]
            unnamed.setdefault(test, set(mark.args)).discard(item.callspec.id)
            if item.callspec.id not in mark.args:
                item.add_marker(pytest.mark.slow)
    if wrong := {test: ids for test, ids in unnamed.items() if ids and not any("::" in arg for arg in config.args)}:
        raise pytest.UsageError(f"quick names cases that the test does not have: {wrong}")
