"""Nothing in parity names a head, a tap or a layer of a family, but for what is that family's own."""

import ast
from pathlib import Path

import pytest

from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.families.pegasus.family import PEGASUS
from tests.conftest import ROOT

# What a family brings: its reference, its faults, steps and sizes, and the adapters that know a framework's modules.
OWN = (
    *("reference/", "/bigbird/", "/pegasus/", "calibration/bigbird.py", "calibration/pegasus.py"),
    *("witnesses/with_", "witnesses/flax_backward.py"),
)
PARTS = ("encoder.layer", "bert", "cls.", "pooler")
# Words that mean something else there, file by file.
REASONS = {
    ("embeddings", "measure/stages.py"): "the reports' column before the layers",
    ("value", "run/keep.py"): "a side of a comparison",
    ("key", "reports/page.py"): "an entry of a page's data",
    ("loss", "run/asked.py"): "a kind of error, as in the table of tolerances",
    ("loss", "run/walk.py"): "a kind of error, as in the table of tolerances",
    ("loss", "measure/tolerances.py"): "a kind of error, as in the table of tolerances",
    ("loss", "measure/calibration/calibrate.py"): "a kind of error, as in the table of tolerances",
    ("loss", "run/results.py"): "a kind of error, as in the table of tolerances",
    ("loss", "training/compare.py"): "what an update says of itself",
    ("loss", "training/curves.py"): "what an update says of itself",
    ("loss", "training/golden.py"): "a tensor of the original's steps",
    ("loss", "conditions/losses.py"): "a kind of error, as in the table of tolerances",
    ("loss", "users/of_torch.py"): "a field of what a call returns",
    ("loss", "measure/rounding.py"): "a kind of error, as in the table of tolerances",
    ("context", "mutants/generate.py"): "what modules of the twins call an array",
    ("key", "mutants/probes/probe.py"): "how the name of a type begins",
    ("loss", "mutants/probes/of_torch.py"): "a field of what a call returns",
    ("loss", "mutants/probes/of_flax.py"): "a field of what a call returns",
    ("output", "mutants/probes/of_torch.py"): "a class of the twins",
    ("output", "mutants/probes/of_flax.py"): "a class of the twins",
    ("loss", "exports/proof.py"): "a kind of error, as in the table of tolerances",
    ("loss", "faults/matrix.py"): "a kind of error, as in the table of tolerances",
    ("bigbird.encoder.layer_pattern", "faults/inject.py"): "where a function of the twins is",
    ("logits", "reports/json_file.py"): "a field of a difference: what it means for a softmax",
}


def names():
    families = (BIGBIRD, PEGASUS)
    taps = [tap for family in families for tap in family.taps]
    heads = {head for family in families for head in family.heads}
    return heads | {tap.name for tap in taps} | {tap.last_name for tap in taps}


def literals(tree):
    """Every string of a module but its docstrings."""
    bodies = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documented = [node for node in ast.walk(tree) if isinstance(node, bodies) and ast.get_docstring(node)]
    docstrings = {id(node.body[0].value) for node in documented}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def named(text):
    known = names()
    return {word for word in literals(ast.parse(text)) if word in known or any(part in word for part in PARTS)}


def engine():
    files = sorted((ROOT / "parity").rglob("*.py"))
    return [path for path in files if not any(part in path.as_posix() for part in OWN)]


@pytest.mark.parametrize("path", engine(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_engine_names_nothing(path):
    place = path.relative_to(ROOT / "parity").as_posix()
    assert named(path.read_text()) == {word for word, file in REASONS if file == place}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bigbird_port.families.bigbird"):
            assert node.module == "bigbird_port.families.bigbird.config", node.module  # the type of configurations
        assert not isinstance(node, ast.ImportFrom) or "families.pegasus" not in (node.module or ""), node.module


@pytest.mark.parametrize("text", ['x = "masked-lm"', 'x = f"encoder.layer.{i}"', '"""Doc."""\nx = taps["query"]'])
def test_a_name_is_noticed(text):
    """The negative control."""
    assert named(text)


def test_no_module_imports_one_that_imports_it():
    files = sorted((ROOT / "parity").rglob("*.py"))
    graph = {module_of(path): set(imported(path)) for path in files}
    left = dict(graph)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"a circle is among {', '.join(left)}"


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """The modules of parity that a module imports when it is loaded."""
    for node in ast.parse(Path(path).read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("parity"):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "parity").rglob("*.py")), ids=str)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) < 400


def test_folders_are_small():
    folders = {path.parent for path in (ROOT / "parity").rglob("*.py")}
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= 13, folder  # twelve, and __init__.py
