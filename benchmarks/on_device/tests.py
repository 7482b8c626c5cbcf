"""The tests marked gpu, each outcome as it comes; pytest has settings of its own here, as plugins may be absent."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.on_device.running import ROOT

_SETTINGS = Path(__file__).parent / "pytest.ini"
_SAID = 600  # characters of why a test failed


class _Listener:
    """A plugin that hands on every outcome: of the call, or of what ended a test before it."""

    def __init__(self) -> None:
        self.found: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        value = report.outcome
        if report.skipped:
            value = f"skipped: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}"
        elif report.failed:
            value = f"failed: {report.longreprtext[-_SAID:]}"
        passed = None if report.skipped else bool(report.passed)
        measured = {str(name): value for name, value in report.user_properties}
        self.found.put({"what": report.nodeid, "passed": passed, "value": value, "measured": measured})

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.found.put({"what": report.nodeid, "passed": False, "value": report.longreprtext[-_SAID:]})


def run(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """Yield the outcome of every test; a test that its device's absence skips has no verdict."""
    import pytest

    listener, settings = _Listener(), ["-c", str(_SETTINGS), "--rootdir", str(ROOT), "-p", "no:cacheprovider"]
    files = sorted({str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8")})
    arguments = [*settings, "-q", "-m", "gpu", *files]

    def listen() -> None:
        code = pytest.main(arguments, plugins=[listener])
        if code not in (0, 1, 5):  # passed, failed, none: the outcomes say it
            listener.found.put({"what": "pytest", "passed": False, "value": f"ended with {code}"})
        listener.found.put(None)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    while (one := listener.found.get()) is not None:
        yield one
    thread.join()
