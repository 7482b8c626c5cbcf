"""docs/schema.md against the code: its tables, its hex dump and its example.

``python -m tests.test_schema_doc`` prints the parts that are generated.
"""

from __future__ import annotations

import json
import math
import re
import sys

import numpy as np
import pytest
import safetensors.numpy

from bigbird_port.families.bigbird.config import BigBirdConfig, config_from
from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.formats.file_plan import Planned
from bigbird_port.formats.safetensors.neutral import FILE_NAME, FORMAT, SCHEMA_VERSION, NeutralFormat
from bigbird_port.schema.table import weights_of
from tests.conftest import ROOT
from tests.formats.execute import files_of, planned

PAGE = ROOT / "docs/schema.md"
TINY = BigBirdConfig(vocab_size=3, hidden_size=2, num_hidden_layers=1, num_attention_heads=1, intermediate_size=3,
                     max_position_embeddings=4, type_vocab_size=1)  # fmt: skip
SHOWN = "encoder.layer.0.intermediate.dense.kernel"


def in_order(heads):
    return "all" if heads == frozenset(HEADS) else ", ".join(name for name in HEADS if name in heads)


def weights_table():
    lines = ["| name | axes | heads | may be there too | only where | its second name elsewhere, not stored |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in BIGBIRD.schema:
        when = ", ".join(f"{field} is {value}" for field, value in row.when)
        tied = f"`{row.tied[0]}`" if row.tied else ""
        cells = (f"`{row.name}`", row.axes, in_order(row.heads), in_order(row.torch_unused_heads), when, tied)
        lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
    return lines


def axes_table():
    return ["| axis | size |", "|---|---|", *(f"| {axis} | {size} |" for axis, size in BIGBIRD.axes.items())]


def tiny_weights(config=TINY, head="base"):
    """Values that count on through the file: 0, 1, 2, ... in the order of the names."""
    shapes = {row.name: row.shape(config) for row in weights_of(config, head, "torch")}
    ends = np.cumsum([math.prod(shapes[name]) for name in sorted(shapes)])
    return {name: np.arange(end - math.prod(shapes[name]), end, dtype=np.float32).reshape(shapes[name])
            for name, end in zip(sorted(shapes), ends, strict=True)}  # fmt: skip


def tiny_file():
    return files_of(NeutralFormat(TINY, "base"), tiny_weights())[FILE_NAME]


def dump(data, start, end):
    """The lines of ``hexdump -C`` that hold bytes start .. end."""
    lines = []
    for at in range(start - start % 16, end, 16):
        row = data[at : at + 16]
        halves = "  ".join(" ".join(f"{byte:02x}" for byte in row[i : i + 8]) for i in (0, 8))
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:08x}  {halves:<48}  |{text}|")
    return lines


def place(data, name):
    """Where the values of a tensor lie in a file."""
    length = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    return 8 + length + begin, 8 + length + end


def shown(data):
    """The three excerpts: the head of the file, one kernel's values, the end."""
    return [dump(data, 0, 96), dump(data, *place(data, SHOWN)), dump(data, len(data) - 16, len(data))]


def tables_in(text):
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)]


@pytest.fixture(scope="module")
def text():
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [weights_table, axes_table])
def test_the_tables_are_the_codes(text, table):
    expected = table()
    (found,) = [lines for lines in tables_in(text) if lines[0] == expected[0]]
    assert found == expected


def test_the_hex_dump_is_the_file(text):
    blocks = [block.splitlines() for block in re.findall(r"```hexdump\n(.*?)\n```", text, flags=re.DOTALL)]
    data = tiny_file()
    assert blocks == shown(data)
    assert f"{len(data)} bytes" in text
    assert f"`{int.from_bytes(data[:8], 'little')}`" in text


def test_what_the_page_says_of_the_dump_is_so(text):
    data = tiny_file()
    begin, end = place(data, SHOWN)
    (entry,) = re.findall(r"```json\n(.*?)\n```", text)
    assert entry.encode() in data
    assert f"= {begin} = 0x{begin:x};" in text
    kernel = np.frombuffer(data[begin:end], "<f4").reshape(2, 3)
    np.testing.assert_array_equal(kernel, safetensors.numpy.load(data)[SHOWN])
    assert kernel.tolist() == [[51, 52, 53], [54, 55, 56]]
    assert np.frombuffer(data[-4:], "<f4") == 74


def test_the_example_runs(text, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / FILE_NAME).write_bytes(tiny_file())
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(code, found)
    assert found["metadata"].keys() == {"format", "schema_version", "head", "config"}
    assert (found["metadata"]["format"], found["metadata"]["schema_version"]) == (FORMAT, SCHEMA_VERSION)
    assert all(f"`{found['metadata'][key]}`" in text for key in ("format", "schema_version"))
    assert config_from(found["config"], "metadata") == TINY
    np.testing.assert_array_equal(found["kernel"], tiny_weights()[SHOWN])


@pytest.mark.parametrize("head", HEADS)
def test_a_file_of_every_head_holds_its_canonical_weights(head):
    config = TINY.replace(use_bias=False, classifier_style="original").for_head(head)
    weights = tiny_weights(config, head)
    data = files_of(NeutralFormat(config, head), weights)[FILE_NAME]
    assert {name: array.tolist() for name, array in safetensors.numpy.load(data).items()} == {
        name: array.tolist() for name, array in weights.items()
    }
    assert not [name for name in weights if "self.query.bias" in name or "decoder" in name]
    assert f"{SHOWN.removesuffix('kernel')}bias" in weights
    without_pooler = {name: array for name, array in weights.items() if not name.startswith("pooler.")}
    assert FILE_NAME in files_of(NeutralFormat(config, head), without_pooler)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier.kernel": Planned(np.dtype("f4"), (2, 2))}, "classifier.kernel is no canonical weight of a base"),
        ({SHOWN: Planned(np.dtype("f4"), (3, 2))}, r"intermediate.dense.kernel is \[3, 2\], .* makes it \[2, 3\]"),
    ],
)
def test_what_is_not_canonical_is_refused(change, message):
    tensors = planned(tiny_weights())
    with pytest.raises(ValueError, match=message):
        NeutralFormat(TINY, "base").plan(tensors | change)


def test_an_alias_means_the_head():
    assert NeutralFormat(TINY, "mlm").metadata["head"] == "masked-lm"
    with pytest.raises(ValueError, match="unknown head 'none'"):
        NeutralFormat(TINY, "none")


def test_a_missing_weight_is_named():
    tensors = planned(tiny_weights())
    del tensors[SHOWN]
    with pytest.raises(ValueError, match=f"no weights for {SHOWN}, which the base head needs"):
        NeutralFormat(TINY, "base").plan(tensors)


if __name__ == "__main__":
    made = tiny_file()
    header = int.from_bytes(made[:8], "little")
    parts = [axes_table(), weights_table(), *shown(made), [f"header {header}, file {len(made)} bytes"]]
    sys.stdout.write("\n\n".join("\n".join(part) for part in parts) + "\n")
