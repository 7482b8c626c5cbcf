"""Installs a stack into an environment of its own, runs the tests there, and says what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from bigbird_port.installed import STACK
from tests.conftest import ROOT
from tests.versions.matrix import TESTS, Stack, requirements


@dataclass(frozen=True)
class Outcome:
    """versions: by package. counts: passed, failed and skipped tests. failures: names of those that failed."""

    name: str
    versions: dict[str, str]
    counts: dict[str, int]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether tests ran and none failed."""
        return self.counts["passed"] > 0 and not self.counts["failed"]


def run(stack: Stack, folder: Path) -> Outcome:
    """Run one stack; raises CalledProcessError where it cannot be installed."""
    place = folder / stack.name.replace(" ", "-")
    python, report = place / "bin/python", place / "report.xml"
    uv = [str(Path(sys.executable).with_name("uv"))]
    subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, place], check=True)
    install = [*uv, "pip", "install", "--quiet", "--python", python, "--resolution", stack.resolution]
    subprocess.run([*install, *requirements(stack)], check=True)
    subprocess.run([python, "-m", "pytest", *arguments(report)], cwd=ROOT, env=surroundings())
    return Outcome(stack.name, versions(python), *read_report(report))


def arguments(report: Path) -> list[str]:
    """pytest's arguments; what old releases deprecate of each other is no error of ours."""
    chosen = [
        "-q",
        "--tb=short",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not browser and not gpu",
    ]
    return [*chosen, f"--junitxml={report}", *TESTS]


def surroundings() -> dict[str, str]:
    """The environment of a run: this checkout's code, on one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "USE_TF": "0", "USE_FLAX": "0"}


def versions(python: Path) -> dict[str, str]:
    """The releases in an environment."""
    program = f"from importlib.metadata import version\nfor name in {STACK}: print(name, version(name))"
    done = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    return dict(line.split() for line in done.stdout.splitlines())


def read_report(report: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Counts of passed, failed and skipped tests, and the names of those that failed; no file is a failure."""
    counts, failures = {"passed": 0, "failed": 0, "skipped": 0}, []
    if not report.is_file():
        return counts | {"failed": 1}, ("pytest wrote no report",)
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        verdict = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        counts[verdict] += 1
        if verdict == "failed":
            failures.append(f"{case.get('classname')}::{case.get('name')}")
    return counts, tuple(failures)
