"""No code but a family's own names its heads, taps, weights or layers: another family moves in without an if."""

import ast
import re

import pytest

from bigbird_port.families.bigbird.family import BIGBIRD
from tests.conftest import ROOT

# Where a family is at home: its own data, its models, and what computes it anew in float64.
AT_HOME = ("bigbird_port/families/",)
ROOMS = ("bigbird_port",)
PARTS = re.compile(
    r"\bbert\b|\bpooler\b|\bencoder[./]layer|\bcls[./]|\bembeddings[./]|\blayer\.\{?\d|\bqa_classifier\b"
)
WORDS = {*BIGBIRD.heads, *(alias for head in BIGBIRD.heads.values() for alias in head.aliases)} | {
    tap.name for tap in BIGBIRD.outside if "_" in tap.name
}
# file -> why its strings may look like these
REASONS = {
    "bigbird_port/formats/detection/architectures.py": "it names other models as what they are",
    "bigbird_port/formats/detection/tensor_names.py": "it knows other models by the names of their tensors",
    "bigbird_port/conversion/targets.py": "--tf-names bert: the older of the original's two spellings",
    "bigbird_port/conversion/training_places.py": "--tf-names bert: the older of the original's two spellings",
    "bigbird_port/cli/convert.py": "--tf-names bert: the older of the original's two spellings",
}


def strings(tree):
    """Every string of the code that is no docstring, with the line on which it stands."""
    documents = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0] if node.body else None, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documents:
            yield node.lineno, node.value


def named(text):
    """What a string names of a family; None if it names nothing."""
    found = PARTS.search(text)
    return text if text in WORDS else found[0] if found else None


def test_no_room_names_what_is_a_familys():
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(paths) > 100
    found = {}
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(AT_HOME):
            for line, text in strings(ast.parse(path.read_text())):
                if named(text):
                    found.setdefault(name, []).append((line, named(text)))
    assert {name: lines for name, lines in found.items() if name not in REASONS} == {}
    assert set(REASONS) <= set(found), "a reason that is not needed any more"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('if head == "qa": pass', "qa"),
        ('x = f"encoder.layer.{i}.output"', "encoder.layer"),
        ('"""About bert."""', None),
        ('x = "embeddings.word"', "embeddings."),
        ('names = ("pooler_output", 1)', "pooler_output"),
        ('x = "a question"', None),
    ],
)
def test_a_name_is_found(line, expected):
    assert next((named(text) for _, text in strings(ast.parse(line)) if named(text)), None) == expected
