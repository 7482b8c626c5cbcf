"""The README's examples run as they stand, and what it names exists."""

import re

import pytest

from bigbird_port.heads import HEADS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number, converted, tmp_path, monkeypatch):
    (tmp_path / "out").symlink_to(converted("mini-pretrain"))
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), {})


def test_every_file_in_the_tree_exists():
    tree = README.partition("## Files\n\n```\n")[2].partition("```")[0]
    folder, checked = ROOT, 0
    for line in tree.splitlines():
        names = re.match(r"^( *)((?:[\w/.]+(?:, )?)+?)(?:  |$)", line)
        assert names, line
        if not names[1]:
            folder = ROOT / names[2]
            assert folder.is_dir(), line
            continue
        for name in names[2].split(", "):
            assert (folder / name).exists(), line
            checked += 1
    assert checked > 30


def test_every_head_is_named():
    assert all(f"`{head}`" in README for head in HEADS)
