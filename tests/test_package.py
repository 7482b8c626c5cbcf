"""The wheel carries what an installed user needs: four packages, their types, the demo checkpoint."""

import shutil
import subprocess
import sys
import zipfile

from tests.conftest import DEMO, GOLDEN, ROOT

PACKAGES = ("bigbird_port", "models_torch", "models_flax", "parity")


def test_the_wheel_is_complete(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("bigbird_port-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    assert modules <= names
    assert {f"{name}/py.typed" for name in PACKAGES} <= names
    assert {f"bigbird_port/demo_checkpoint/{path.name}" for path in DEMO.iterdir()} <= names
    assert {f"parity/given/original/{path.name}" for path in GOLDEN["mini-pretrain"].cases} <= names
    assert {f"parity/reports/{name}" for name in ("page.css", "page.html.j2")} <= names
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    entries = zipfile.ZipFile(wheel).read(entry_points).decode()
    assert "bigbird-port = bigbird_port.cli:main" in entries
    assert "[pytest11]\nbigbird_parity = parity.pytest_plugin" in entries


def test_the_shipped_checkpoint_is_small_and_holds_no_path_of_another_machine():
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 300_000
    assert "/" not in (DEMO / "checkpoint").read_text()
