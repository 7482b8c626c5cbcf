"""One part in a process of its own: what it finds is read line by line, so that what it found in time is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.on_device.parts import Part
from benchmarks.on_device.record import ABSENT, DONE, FAILED, NOT_REACHED, TIMED_OUT, Record, is_there

ROOT = Path(__file__).parents[2]
_STAND_INS = Path(__file__).parent / "stand_ins"  # of packages that are absent and small
_LEAST = 5.0  # seconds without which a part is not begun
_SAID = 2000  # characters of what a failed part said


def run_part(part: Part, device: str, small: bool, left: float) -> Record:
    """Run a part in at most its own time and what is left of the whole; whatever happens comes back as a record."""
    record: Record = {"name": part.name, "question": part.question, "seconds": 0.0, "limit": part.seconds, "why": ""}
    record |= {"found": [], "state": ABSENT}
    if absent := [name for name in part.needs if not is_there(name)]:
        return record | {"why": f"{', '.join(absent)} is not installed"}
    if part.chosen.get("framework") == "torch" and device.startswith("tpu"):
        return record | {"why": f"torch does not run on {device}"}
    if left < _LEAST:
        return record | {"state": NOT_REACHED, "why": "the time of all parts was over"}
    start, limit = time.monotonic(), min(part.seconds, left)
    with tempfile.TemporaryDirectory() as folder:
        found, said = Path(folder) / "found", Path(folder) / "said"
        chosen = {**part.chosen, "device": device, "small": small}
        code = _run([part.function, json.dumps(chosen), str(found)], said, limit, device)
        lines = found.read_text("utf-8").splitlines() if found.exists() else []
        end = said.read_text("utf-8", errors="replace")[-_SAID:]
    record |= {"found": [json.loads(line) for line in lines], "seconds": round(time.monotonic() - start, 1)}
    if code is None:
        why = f"stopped after {limit:.0f} s, with {len(lines)} findings"
        return record | {"state": TIMED_OUT, "why": why, "said": end}
    if code:
        last = end.strip().splitlines()[-1:] or [f"ended with {code}"]
        return record | {"state": FAILED, "why": last[0], "said": end}
    if not lines:
        return record | {"state": FAILED, "why": "it found nothing", "said": end}
    return record | {"state": DONE}


def _run(arguments: list[str], said: Path, limit: float, device: str) -> int | None:
    """The exit code of a part's process; None where it was stopped, with all that it had started."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.on_device.worker", *arguments]
    with said.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(device), stdout=file, stderr=file, start_new_session=True
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:  # also where the whole run is stopped
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def environment(device: str) -> dict[str, str]:
    """What a part's process is told: where this project is, not to take all memory at once, nor to download."""
    paths = [str(ROOT), *[str(_STAND_INS)] * (not is_there("google_crc32c")), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "HF_HUB_OFFLINE": "1",
        "USE_TF": "0",
        "BIGBIRD_PORT_DEVICE": device,
    }
    return os.environ | own | ({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {})
