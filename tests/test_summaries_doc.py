"""docs/summaries.md: its example runs as it stands."""

import re

from bigbird_port.conversion.convert import convert
from tests.conftest import GOLDEN, ROOT

PAGE = ROOT / "docs/summaries.md"


def test_the_example_runs(tmp_path, monkeypatch):
    convert(GOLDEN["mini-pegasus"].checkpoint, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(code, "example", "exec"), {})
