"""Who may import whom, and that nothing heavy is imported where it is not needed."""

import ast
import subprocess
import sys
import time

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
        if path.is_relative_to(ROOT / "bigbird_port/cli"):
            continue
        assert set(imports(path)) & OURS <= ALLOWED[package], path


@pytest.mark.parametrize("package", ALLOWED)
def test_frameworks_are_imported_only_where_they_belong(package):
    for path in files_of(package):
        assert set(imports(path, top_level_only=True)) & HEAVY <= MAY_IMPORT_AT_TOP.get(package, set()), path
        assert not set(imports(path)) & {"tensorflow", "transformers"}, path


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
    assert not loaded("import models_torch") & {"jax", "flax", "models_flax"}
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
