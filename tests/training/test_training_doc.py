"""docs/training.md and the README: their examples run, the table is what the project measures."""

import re

import numpy as np
import pytest
import torch

from benchmarks.training import GOLDEN, WAYS, measured
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.training.carried import Asked
from parity.training.faults import FAULTS
from tests.conftest import ROOT
from tests.training.steps import MINI, steps_of

PAGE = (ROOT / "docs/training.md").read_text()
SHOWN = PAGE, (ROOT / "README.md").read_text()
EXAMPLES = [code for page in SHOWN for code in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
            if ".training import" in code]  # fmt: skip
TABLE = {cells[0]: [float(x) for x in cells[1:]]
         for line in PAGE.splitlines() if len(cells := [x.strip() for x in line.strip("| ").split("|")]) == 4
         and cells[0] in WAYS}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doc") / "out"
    convert(steps_of(MINI).checkpoint, folder, Settings(training=Asked()))
    return folder


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code, out, tmp_path, monkeypatch):
    (tmp_path / "out").symlink_to(out)
    monkeypatch.chdir(tmp_path)
    batch = steps_of(MINI).batch(1)
    ids, labels = torch.from_numpy(batch["input_ids"]).long(), torch.full((3, 240), -100)
    labels[:, 7] = 5
    names = {"batch": batch, "inputs": {"input_ids": ids}, "labels": labels}
    names["next_sentence_label"] = torch.from_numpy(np.asarray(batch["next_sentence_labels"])).long().flatten()
    exec(compile(code, "example", "exec"), names)
    assert names["run"].step == (11 if "step(" in code else 10)  # the Trainer of one takes no step here


def test_the_page_has_examples_and_its_table():
    assert len(EXAMPLES) == 5  # the README's is the last
    assert TABLE.keys() == WAYS.keys()
    faults = re.search(r"\| fault \| fault \|\n(.*)", PAGE, flags=re.DOTALL)[1].strip().splitlines()[1:]
    assert sum(len(line.strip("| ").split("|")) for line in faults) == len(FAULTS)


@pytest.mark.parametrize("way", list(WAYS)[:4])
def test_the_table_is_what_is_measured(way, tmp_path):
    convert(GOLDEN / "model.ckpt-10", tmp_path / "out", Settings(to=("torch",), training=Asked()))
    found = measured(tmp_path / "out", GOLDEN / "steps.safetensors", WAYS[way])
    if TABLE[way][0] < 1e-3:  # rounding: of its order
        assert max(found) < 1e-5
    else:
        np.testing.assert_allclose(found, TABLE[way], rtol=0.05)
