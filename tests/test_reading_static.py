"""Files are opened for reading in one place, which refuses what would block or never end."""

import ast

import pytest

from tests.conftest import ROOT

PACKAGES = ("bigbird_port", "models_torch", "models_flax", "parity")
# What opens a file, or hands a library a path to open: as a function, and as a method or a module's function.
FUNCTIONS = {"open", "FileIO", "ZipFile", "safe_open", "load_file", "copyfile", "copytree", "memmap"}
METHODS = FUNCTIONS | {"read_text", "read_bytes", "fdopen", "fromfile", "loadtxt", "mmap", "copy2", "copyfileobj"}
LOADERS = {"np", "numpy", "torch", "pickle", "jnp", "safetensors"}  # whose load opens a file
# (file, what is called) -> why it may be: each is there.
REASONS = {
    ("bigbird_port/files/reading.py", "open"): "the one place",
    ("bigbird_port/files/reading.py", "FileIO"): "the one place",
    ("bigbird_port/files/writing.py", "open"): "opens a new file for writing",
    ("bigbird_port/files/outputs/output.py", "open"): "locks a folder, which it refuses to be anything else",
    ("bigbird_port/formats/filling.py", "open"): "makes new files, and flushes those that it made",
    ("bigbird_port/formats/runs.py", "memmap"): "of a file that was opened in the one place",
    ("bigbird_port/formats/torch/reader.py", "ZipFile"): "of a file that was opened in the one place",
    ("bigbird_port/formats/torch/reader.py", "mmap"): "of a file that was opened in the one place",
    ("bigbird_port/formats/torch/reader.py", "load"): "torch takes a path alone; the file was opened before",
    ("bigbird_port/formats/torch/inert.py", "ZipFile"): "of a file that was opened in the one place",
    ("bigbird_port/formats/torch/inert.py", "mmap"): "of a file that was opened in the one place",
    ("bigbird_port/formats/torch/inert.py", "load"): "torch takes a path alone; the file was opened before",
    ("bigbird_port/formats/detection/archives.py", "ZipFile"): "of a file that was opened in the one place",
    ("bigbird_port/formats/detection/archives.py", "open"): "a member of an archive that was opened in the one place",
    ("parity/given/inputs.py", "load_file"): "check_regular stands before it",
    ("parity/given/golden.py", "safe_open"): "check_regular stands before it",
    ("models_flax/pretrained/files.py", "safe_open"): "check_regular stands before it",
    ("models_flax/pretrained/files.py", "load_file"): "check_regular stands before it",
    ("parity/exports/running.py", "load_file"): "check_regular stands before it",
    ("parity/reports/page.py", "read_text"): "files that come with the package",
    ("parity/mutants/run.py", "read_text"): "the project's own code",
    ("parity/mutants/worker.py", "read_bytes"): "the project's own code, and what workers wrote for each other",
    ("parity/mutants/worker.py", "open"): "the null device, for what a mutant prints",
    ("parity/mutants/pool.py", "read_text"): "what a worker wrote for the pool",
    ("parity/mutants/probes/of_shared.py", "read_text"): "what the probe wrote",
    ("parity/mutants/probes/of_shared.py", "read_bytes"): "what the probe wrote",
    ("parity/mutants/probes/of_shared.py", "load_file"): "what the probe wrote",
}


def calls(path):
    """Names of what is called that opens a file, as far as the names tell."""
    for node in ast.walk(ast.parse(path.read_text())):
        function = getattr(node, "func", None)
        if isinstance(function, ast.Name) and function.id in FUNCTIONS:
            yield function.id
        elif isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            if (function.attr in METHODS and owner != "self") or (function.attr == "load" and owner in LOADERS):
                yield function.attr


def found():
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 100
    return {(str(path.relative_to(ROOT)), name) for path in files for name in calls(path)}


def test_no_other_module_opens_files():
    assert found() == set(REASONS)


@pytest.mark.parametrize(
    "line",
    [
        "open('x')",
        "path.open()",
        "path.read_bytes()",
        "path.read_text()",
        "np.load(path)",
        "np.memmap(path)",
        "shutil.copyfile(a, b)",
        "os.open(path, 0)",
    ],
)
def test_the_test_sees_what_opens_a_file(tmp_path, line):
    (tmp_path / "module.py").write_text(line)
    assert list(calls(tmp_path / "module.py"))
