"""The README's examples run as they stand, and what it names exists."""

import re

import pytest

from bigbird_port.config import BigBirdConfig
from bigbird_port.folder import WEIGHT_FILES, write_model_folder
from bigbird_port.heads import HEADS
from bigbird_port.initialise import initial_value
from bigbird_port.schema import weights_of
from bigbird_port.tokenizers import write_tokenizer_files
from parity.measure.tolerances import shipped_table
from tests.conftest import ROOT
from tests.vocabulary import train_vocabulary

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_examples():
    assert EXAMPLES


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What convert writes for a pretraining checkpoint with a vocabulary, here with initial values as its weights."""
    config = BigBirdConfig(
        vocab_size=500,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=24,
        max_position_embeddings=1024,
        block_size=16,
    )
    out = tmp_path_factory.mktemp("readme") / "out"
    (out.parent / "small.model").write_bytes(train_vocabulary())
    weights = {row.name: initial_value(row, config, 0) for row in weights_of(config, "pretraining", "torch")}
    for framework in WEIGHT_FILES:
        (out / framework).mkdir(parents=True)
        write_model_folder(out / framework, weights, config, "pretraining", framework)
        write_tokenizer_files(out.parent / "small.model", out / framework)
    return out


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number, out, tmp_path, monkeypatch):
    (tmp_path / "out").symlink_to(out)
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), {})


def test_every_file_in_the_tree_exists():
    tree = README.partition("## Files\n\n```\n")[2].partition("```")[0]
    folders, checked = {-2: ROOT}, 0  # the latest folder at each indentation
    for line in tree.splitlines():
        names = re.match(r"^( *)([\w/.]+(?:[,;] [\w/.]+)*)(?:  |$)", line)
        assert names, line
        indentation = len(names[1])
        for name in re.split("[,;] ", names[2]):
            path = folders[indentation - 2] / name
            assert path.exists(), line
            checked += 1
            if path.is_dir():
                folders[indentation] = path
    assert checked > 30


def test_every_head_is_named():
    assert all(f"`{head}`" in README for head in HEADS)


def test_the_table_of_tolerances_is_as_large_as_it_says():
    entries = shipped_table().entries.values()
    assert f"({len(entries)}\nentries, {sum(entry.samples for entry in entries):,} samples)" in README
