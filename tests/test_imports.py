"""Who may import whom, and that nothing heavy is imported where it is not needed."""

import ast
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.conftest import ROOT

# package -> the packages of this project that it may import
ALLOWED = {
    "bigbird_port": {"bigbird_port"},
    "models_torch": {"bigbird_port", "models_torch"},
    "models_flax": {"bigbird_port", "models_flax"},
    "parity": {"bigbird_port", "models_torch", "models_flax", "parity"},
}
OURS = set(ALLOWED)
HEAVY = {"torch", "jax", "flax", "tensorflow", "transformers"}
FILES, LINES = 13, 400
# One module for each part of the model, the same in both twins; one for each way in which torch's attention runs.
FULLER = {"models_torch/bigbird": 14, "models_flax/bigbird": 14, "models_torch/attention": 15}
# Rooms above all others: the command line, and what stands in other libraries' clothes.
ABOVE = ("bigbird_port/cli", "bigbird_port/integrations")
MAY_IMPORT_AT_TOP = {"models_torch": {"torch"}, "models_flax": {"jax", "flax"}}


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def files_of(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_depend_one_way(package):
    for path in files_of(package):
        if not any(path.is_relative_to(ROOT / room) for room in ABOVE):
            assert set(imports(path)) & OURS <= ALLOWED[package], path
            assert "from bigbird_port.integrations" not in path.read_text(), path


@pytest.mark.parametrize("package", ALLOWED)
def test_frameworks_are_imported_only_where_they_belong(package):
    for path in files_of(package):
        if path.is_relative_to(ROOT / ABOVE[1]):
            continue
        assert set(imports(path, top_level_only=True)) & HEAVY <= MAY_IMPORT_AT_TOP.get(package, set()), path
        assert not set(imports(path)) & {"tensorflow", "transformers"}, path


def modules():
    """Every module of the four packages, by its name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ALLOWED
        for path in files_of(package)
    }


def statements(body):
    """What runs when a module is imported: not its functions, and not what is there for a checker of types alone."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from statements(node.body)
            yield from statements(getattr(node, "orelse", []))
        else:
            yield node


def imported_modules(tree, known):
    for node in statements(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if name in known)
            if node.module in known and not all(name in known for name in inner):
                yield node.module


def find_circle(graph):
    """A list of modules each of which imports the next, the last the first; empty if there is none."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        path.append(name)
        for other in graph[name]:
            if found := visit(other):
                return found
        done.add(path.pop())
        return []

    return next((found for name in graph if (found := visit(name))), [])


def test_no_module_imports_itself_by_way_of_others():
    known = modules()
    graph = {name: sorted(set(imported_modules(ast.parse(path.read_text()), known))) for name, path in known.items()}
    assert sum(map(len, graph.values())) > 500  # the imports were found
    assert find_circle(graph) == []


def test_a_circle_is_found():
    known = {"a", "a.b", "a.c"}
    sources = {
        "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import b\ndef f():\n    import a.c",
        "a.b": "from a import c",
        "a.c": "try:\n    from a.b import x\nexcept ImportError:\n    pass",
    }
    graph = {name: list(imported_modules(ast.parse(text), known)) for name, text in sources.items()}
    assert graph == {"a": [], "a.b": ["a.c"], "a.c": ["a.b"]}
    assert find_circle(graph) == ["a.b", "a.c"]
    assert find_circle(graph | {"a.c": []}) == []


def test_rooms_and_files_stay_small():
    """A folder has about a dozen files, and a file fits a sitting."""
    paths = list(modules().values())
    folders = Counter(path.parent.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py")
    assert {folder: count for folder, count in folders.items() if count > FILES} == FULLER
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in paths}
    assert not {path: length for path, length in lengths.items() if length > LINES}


def loaded(program):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sorted(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_help_loads_no_framework_and_not_even_numpy():
    run = "from click.testing import CliRunner; from bigbird_port.cli import main\n"
    for arguments in ([], ["convert"], ["inspect"], ["diff"], ["verify"], ["parity"], ["schema"]):
        found = loaded(f"{run}assert CliRunner().invoke(main, {[*arguments, '--help']}).exit_code == 0")
        assert not found & (HEAVY | {"numpy", "rich"}), arguments


def test_a_conversion_loads_no_framework(tmp_path):
    from tests.conftest import DEMO

    found = loaded(f"from pathlib import Path; from bigbird_port.conversion.convert import convert\n"
                   f"convert(Path({str(DEMO)!r}), Path({str(tmp_path / 'out')!r}))")  # fmt: skip
    assert "numpy" in found
    assert not found & HEAVY


def test_the_twins_do_not_load_each_other():
    assert not loaded("import models_torch, bigbird_port.integrations") & {"jax", "flax", "models_flax"}
    assert not loaded("import models_flax") & {"torch", "models_torch"}


def test_help_answers_at_once():
    """Well under a second; the best of five, as the machine may be busy."""
    command = [sys.executable, "-c", "from bigbird_port.cli import main; main()", "--help"]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5
