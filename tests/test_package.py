"""The wheel and the sdist carry what an installed user needs, and nothing else; both work when they are installed."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.conftest import DEMO, GOLDEN, ROOT

PACKAGES = ("bigbird_port", "models_torch", "models_flax", "parity")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What is built, as a folder of its own: setuptools writes beside what it builds."""
    source = tmp_path_factory.mktemp("package") / "source"
    source.mkdir()
    for name in (*PACKAGES, "tests", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
        else:
            shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return wheel_of(source, tmp_path_factory.mktemp("wheel"))


def wheel_of(source, folder):
    """Build without network: what builds it is here."""
    run(sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (wheel,) = folder.glob("bigbird_port-*.whl")
    return wheel


def shipped():
    """Every module, and every other file in the packages: their data."""
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}


def test_the_wheel_is_complete(wheel):
    archive = zipfile.ZipFile(wheel)
    names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == shipped()
    assert {f"{name}/py.typed" for name in PACKAGES} <= names
    assert {f"bigbird_port/demo_checkpoint/{path.name}" for path in DEMO.iterdir()} <= names
    assert {f"parity/given/original/{path.name}" for path in GOLDEN["mini-pretrain"].cases} <= names
    assert {f"parity/reports/{name}" for name in ("page.css", "page.html.j2")} <= names
    tables = {"measure/tolerances.json", "measure/tolerances.pegasus.json", "training/tolerances.json"}
    assert {f"parity/{name}" for name in tables} <= names
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    entries = archive.read(entry_points).decode()
    assert "bigbird-port = bigbird_port.cli:main" in entries
    assert "[pytest11]\nbigbird_parity = parity.pytest_plugin" in entries


def test_the_wheel_asks_for_no_framework(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    asked = [line for line in archive.read(name).decode().splitlines() if line.startswith("Requires-Dist: ")]
    bare = [line.split()[1] for line in asked if "extra ==" not in line]
    assert any(line.startswith("numpy") for line in bare)
    assert not [line for line in bare if line.startswith(("torch", "jax", "flax", "optax", "transformers"))]
    assert any(line.startswith("Requires-Dist: torch") and 'extra == "torch"' in line for line in asked)
    assert any(line.startswith("Requires-Dist: jax") and 'extra == "flax"' in line for line in asked)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_works_when_it_is_installed(kind, wheel, source, tmp_path):
    """Without the checkout: the demo's checkpoint and the tables are read from what was installed."""
    if kind == "sdist":
        build = f"import setuptools.build_meta as build; build.build_sdist({str(tmp_path)!r})"
        run(sys.executable, "-c", build, cwd=source)
        (archive,) = tmp_path.glob("bigbird_port-*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path / "unpacked", filter="data")
        (unpacked,) = (tmp_path / "unpacked").iterdir()
        wheel = wheel_of(unpacked, tmp_path)
    place = tmp_path / "installed"
    run(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", place, wheel)
    surroundings = {"env": os.environ | {"PYTHONPATH": str(place)}, "cwd": tmp_path}
    where = "import bigbird_port, models_torch, models_flax, parity as p; print(bigbird_port.__file__, p.__file__)"
    assert all(path.startswith(str(place)) for path in run(sys.executable, "-c", where, **surroundings).split())
    command = place / "bin/bigbird-port"
    assert run(command, "--version", **surroundings).startswith("bigbird-port ")
    demo = place / "bigbird_port/demo_checkpoint"
    run(command, "convert", demo, "out", **surroundings)
    assert "verified" in run(command, "verify", "out", **surroundings)
    tables = (
        "from parity.measure.tolerances import shipped_table; from bigbird_port.families.registry import families\n"
    )
    tables += "print(*(len(shipped_table(family).entries) for family in families()))"
    counts = run(sys.executable, "-c", tables, **surroundings).split()
    assert len(counts) == 2
    assert all(int(count) > 10 for count in counts)


def test_the_shipped_checkpoint_is_small_and_holds_no_path_of_another_machine():
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 300_000
    assert "/" not in (DEMO / "checkpoint").read_text()
