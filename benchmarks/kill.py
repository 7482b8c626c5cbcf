"""Kill conversions at random moments, and let several write one output at once: what is left must be whole.

    python -m benchmarks.kill [--kills 200] [--races 50] [--folder FOLDER] [--seed 0]

tests/conversion/outputs/test_reliability.py runs the same functions with small numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bigbird_port.conversion.manifest import Manifest, read_manifest

# What a shell runs in the background does not hear SIGINT, and hands that on.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bigbird_port.cli import main
main()
"""
COMMAND = [sys.executable, "-c", PROGRAM, "convert", "--quiet"]
TOLD = re.compile(r"Error: .*(another process is writing it now: wait|exists already: choose another name)")
OLD, NEW = ("--dtype", "bfloat16"), ("--dtype", "float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--races", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="where to work; a new folder in it is made and removed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        from benchmarks.checkpoint import write_checkpoint

        folder = Path(name)
        write_checkpoint(folder / "source", "100MB")
        for overwrite in (False, True):
            kill = "with --overwrite" if overwrite else "without --overwrite"
            print(f"{kill}: {dict(kills(folder, arguments.kills // 2, overwrite, rng))}", flush=True)
        for processes in (2, 4):
            for overwrite in (False, True):
                ends = races(folder, arguments.races // 4, processes, overwrite, rng)
                print(f"{processes} at once, {overwrite=}: {dict(ends)}", flush=True)


def start(source: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [*COMMAND, str(source), str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what was said on standard error."""
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def verify(out: Path) -> Manifest:
    """Raise unless a manifest fits itself, and the files there are exactly those that it lists."""
    manifest = read_manifest(out)
    listed = {
        Path(target) / file["name"]: file["sha256"] for target in manifest.targets for file in manifest.files(target)
    }
    there = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    if not listed or there.keys() != listed.keys() | {Path("manifest.json")}:
        raise AssertionError(f"{out} holds {sorted(there)}, its manifest lists {sorted(listed)}")
    for name, sha256 in listed.items():
        if hashlib.sha256(there[name].read_bytes()).hexdigest() != sha256:
            raise AssertionError(f"{out / name} is not what its manifest says")
    return manifest


def kills(folder: Path, count: int, overwrite: bool, rng: random.Random) -> Counter[str]:
    """Kill ``count`` conversions, half at moments over a whole run, half in its last steps; count what is left.

    Raises AssertionError where that is not whole, or where the run after it fails or leaves anything beside OUT.
    """
    place, left = folder / f"kills-{overwrite}", Counter[str]()
    out, source = place / "out", folder / "source"
    place.mkdir()
    begin = time.perf_counter()
    run_well(source, out, *OLD)
    duration = time.perf_counter() - begin
    old = out.rename(folder / f"old-{overwrite}")
    for i in range(count):
        if overwrite:
            shutil.copytree(old, out)
        process = start(source, out, *NEW, *(["--overwrite"] if overwrite else []))
        if i % 2:
            wait_for(process, place / ".out.partial/manifest.json")
        time.sleep(rng.uniform(0, 0.1 if i % 2 else duration))
        process.send_signal(signal.SIGKILL)
        code, _ = finish(process)
        left[f"{state(out)}{' (it had ended)' if code == 0 else ''}"] += 1
        left["temporaries to remove"] += len(list(place.glob(".out.*")))
        run_well(source, out, *NEW, "--overwrite")
        shutil.rmtree(out)
    return left


def wait_for(process: subprocess.Popen[str], path: Path) -> None:
    while process.poll() is None and not path.exists():
        time.sleep(0.0005)


def state(out: Path) -> str:
    """Whether an output is absent, the old one or the new one; raises AssertionError if it is none of these."""
    return {"bfloat16": "old", "float32": "new"}[verify(out).values["dtype"]] if out.exists() else "absent"


def run_well(source: Path, out: Path, *options: str) -> None:
    """Convert, and raise AssertionError unless all is well and nothing stands beside the output."""
    code, said = finish(start(source, out, *options))
    beside = [path.name for path in out.parent.iterdir()]
    if code or said or beside != [out.name]:
        raise AssertionError(f"ended with {code}, left {beside}: {said}")
    verify(out)


def races(folder: Path, count: int, processes: int, overwrite: bool, rng: random.Random) -> Counter[str]:
    """Let several processes convert into one folder, half of them started one after the other; count their ends.

    Raises AssertionError unless one wins (of those that do not overwrite, only one) and all others are told.
    """
    place, ends = folder / f"races-{processes}-{overwrite}", Counter[str]()
    place.mkdir()
    out, options = place / "out", ["--overwrite"] if overwrite else []
    for i in range(count):
        running = []
        for _ in range(processes):
            running.append(start(folder / "source", out, *options))
            time.sleep(rng.uniform(0, 1) if i % 2 else 0)
        results = [finish(process) for process in running]
        winners = sum(code == 0 for code, _ in results)
        told = [TOLD.match(said) for code, said in results if code == 2 and said.count("\n") == 1]
        if winners < 1 or (winners > 1 and not overwrite) or winners + len(told) < processes or not all(told):
            raise AssertionError(f"{processes} at once ended so: {results}")
        if [path.name for path in place.iterdir()] != ["out"]:
            raise AssertionError(f"{processes} at once left {list(place.iterdir())}")
        verify(out)
        ends["won"] += winners
        ends.update(match[1].partition(":")[0] for match in told if match)
        if not overwrite:
            shutil.rmtree(out)
    return ends


if __name__ == "__main__":
    main()
