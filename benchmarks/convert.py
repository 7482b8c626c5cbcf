"""Whole conversions, from start to exit, against TensorFlow's road and against copying the bytes, in one run.

All sides run in turn, in processes of their own, and start with the source in the page cache. Before anything is
timed, what TensorFlow's road writes is compared with what the conversion writes, tensor by tensor.

The copy is of exactly the bytes that the conversion beside it wrote, to the same disk, in the same run. Flushed, it
does what a conversion does before its output appears: fsync of every file and folder. cp alone leaves that to later,
and so does TensorFlow's road.

    python -m benchmarks.convert [--size base|large] [--repeats 5] [--folder FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Nothing large is imported before the last measurement: a process starts with the peak memory of the one it left.

MIB = 2**20
CLI = "from bigbird_port.cli import main; main()"
SAME = """
import sys, safetensors.numpy as s
a, b = map(s.load_file, sys.argv[1:])
if a.keys() != b.keys() or not a:
    sys.exit(f"other names: {a.keys() ^ b.keys()}")
different = [n for n in a if a[n].shape != b[n].shape or a[n].tobytes() != b[n].tobytes()]
sys.exit(f"these differ: {different}" if different else 0)
"""
MODULES = """
import sys, atexit
atexit.register(lambda: print("imported:", *sorted({"torch", "jax", "tensorflow"} & set(sys.modules))))
from bigbird_port.cli import main; main()
"""
# An installed package has its bytecode, as TensorFlow's has here: the first run, which is not timed, writes this one's.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
WITH_SLOTS = ("slots to torch", "slots to both")
COPY = 'mkdir "$1" && cp -r "$0"/. "$1"'
FLUSHED = COPY + ' && find "$1" -exec sync {} +'  # fsync of each file and folder, as a conversion does


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("small", "base", "large"), default="base")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; a new folder in it is made and removed")
    parser.add_argument("--optimizer", action="store_true", help="measure convert --optimizer alone")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        tensors = int(python("-m", "benchmarks.checkpoint", arguments.size, str(folder / "source")))
        size = sum(path.stat().st_size for path in (folder / "source").iterdir())
        commands = sides_with_slots(folder) if arguments.optimizer else sides(folder)
        prepare(folder, commands)
        runs = measure(folder, commands, arguments.repeats)
        imported = python("-c", MODULES, "convert", str(folder / "source"), str(folder / "out"), "--quiet").strip()
    figures = {name: summary(values) for name, values in runs.items()}
    record = {"size": arguments.size, "tensors": tensors, "bytes": size, "machine": machine(), "figures": figures}
    record |= {"goals": goals(figures), imported.partition(":")[0]: imported.partition(":")[2].split(), "runs": runs}
    report(record)
    if arguments.json:
        import json

        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def python(*arguments: str) -> str:
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(process.stderr)
    return process.stdout


def sides(folder: Path) -> dict[str, list[str]]:
    """What is measured; each writes folder/out, which is removed between runs."""
    out = str(folder / "out")
    convert = [sys.executable, "-c", CLI, "convert", str(folder / "source"), out, "--quiet"]
    tensorflow = [sys.executable, "-m", "benchmarks.tensorflow_road", str(folder / "source/model.ckpt-0"), out]
    return {
        "interpreter with numpy": [sys.executable, "-c", "import numpy"],
        "torch": [*convert, "--to", "torch"],
        "torch, no checksums": [*convert, "--to", "torch", "--no-checksums"],
        "torch and flax": convert,
        "TensorFlow's road": tensorflow,
        "copy torch": ["sh", "-c", COPY, str(folder / "torch/torch"), out],
        "copy torch, flushed": ["sh", "-c", FLUSHED, str(folder / "torch/torch"), out],
        "copy torch and flax": ["sh", "-c", COPY, str(folder / "torch and flax"), out],
        "copy torch and flax, flushed": ["sh", "-c", FLUSHED, str(folder / "torch and flax"), out],
    }


def sides_with_slots(folder: Path) -> dict[str, list[str]]:
    """The same of conversions that carry the optimizer's slots, which nobody else does."""
    out = str(folder / "out")
    convert = [sys.executable, "-c", CLI, "convert", str(folder / "source"), out, "--quiet", "--optimizer"]
    return {
        "interpreter with numpy": [sys.executable, "-c", "import numpy"],
        "slots to torch": [*convert, "--to", "torch"],
        "slots to both": convert,
        "copy slots to torch": ["sh", "-c", COPY, str(folder / "slots to torch"), out],
        "copy slots to torch, flushed": ["sh", "-c", FLUSHED, str(folder / "slots to torch"), out],
        "copy slots to both": ["sh", "-c", COPY, str(folder / "slots to both"), out],
        "copy slots to both, flushed": ["sh", "-c", FLUSHED, str(folder / "slots to both"), out],
    }


def prepare(folder: Path, commands: dict[str, list[str]]) -> None:
    """Run each conversion once, untimed, keep what is copied, and compare it with TensorFlow's, which has no slots."""
    kept = [name for name in ("torch", "torch and flax", "TensorFlow's road", *WITH_SLOTS) if name in commands]
    for name in kept:
        run(commands[name])
        (folder / "out").rename(folder / name)
    if "torch" in kept:
        python("-c", SAME, str(folder / "torch/torch/model.safetensors"), str(folder / "TensorFlow's road"))


def measure(folder: Path, commands: dict[str, list[str]], repeats: int) -> dict[str, list[dict[str, float]]]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            out = folder / "out"
            runs[name].append(run(command))
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    return runs


def run(command: list[str]) -> dict[str, float]:
    """Run one process: seconds from start to exit, of processor time, and its peak memory."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command} ended with {process.returncode}: {said.read()}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss * 1024 / MIB}


def summary(values: list[dict[str, float]]) -> dict[str, float]:
    wall, cpu = [run["wall"] for run in values], [run["cpu"] for run in values]
    peak = max(run["peak_mib"] for run in values)
    return {"wall": statistics.median(wall), "least_wall": min(wall), "cpu": statistics.median(cpu), "peak_mib": peak}


def goals(figures: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Each goal with what was measured: of the medians, of the fastest runs, and of processor time."""
    table = (
        ("TensorFlow's road / torch, no checksums", "TensorFlow's road", "torch, no checksums", "at least", 6),
        ("TensorFlow's road / torch", "TensorFlow's road", "torch", "at least", 4),
        ("torch / copy, flushed", "torch", "copy torch, flushed", "at most", 2.5),
        ("torch, no checksums / copy, flushed", "torch, no checksums", "copy torch, flushed", "at most", 2.5),
        ("torch and flax / copy, flushed", "torch and flax", "copy torch and flax, flushed", "at most", 2.5),
        ("torch and flax / copy, not flushed", "torch and flax", "copy torch and flax", "at most", 2.5),
        ("slots to torch / copy, flushed", "slots to torch", "copy slots to torch, flushed", "at most", 2.5),
        ("slots to torch / copy, not flushed", "slots to torch", "copy slots to torch", "at most", 2.5),
        ("slots to both / copy, flushed", "slots to both", "copy slots to both, flushed", "at most", 2.5),
        ("slots to both / copy, not flushed", "slots to both", "copy slots to both", "at most", 2.5),
    )
    rows = []
    for name, above, below, which, goal in (row for row in table if row[1] in figures):
        measured = {key: figures[above][key] / figures[below][key] for key in ("wall", "least_wall", "cpu")}
        met = measured["wall"] >= goal if which == "at least" else measured["wall"] <= goal
        rows.append({"name": name, "goal": f"{which} {goal}", "met": met, **measured})
    own = figures["interpreter with numpy"]["peak_mib"]
    ours = ("torch", "torch, no checksums", "torch and flax", *WITH_SLOTS)
    peak = max(figures[name]["peak_mib"] for name in ours if name in figures) - own
    return [*rows, {"name": "peak MiB over the interpreter's", "goal": "at most 128", "met": peak <= 128, "wall": peak}]


def machine() -> dict[str, Any]:
    from importlib.metadata import version

    names = ("bigbird-port", "numpy", "google-crc32c", "safetensors", "tensorflow")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = named[0] if named else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return {"processor": processor, "cores": cores, "load": os.getloadavg(), "versions": versions}


def report(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=110)
    about, size = record["machine"], f"{record['bytes'] / 1e9:.2f} GB, {record['tensors']} tensors"
    console.print(
        f"{record['size']}: {size}; {about['processor']}, {about['cores']} cores, load {about['load'][0]:.1f}"
    )
    times = Table("side", *(f"{head}" for head in ("median s", "fastest s", "processor s", "peak MiB")))
    for name, row in record["figures"].items():
        cells = (row["wall"], row["least_wall"], row["cpu"])
        times.add_row(name, *(f"{cell:.2f}" for cell in cells), f"{row['peak_mib']:.0f}")
    reached = Table("goal", "", "of medians", "of fastest", "of processor time", "met")
    for row in record["goals"]:
        cells = [f"{row[key]:.2f}" if key in row else "" for key in ("wall", "least_wall", "cpu")]
        reached.add_row(row["name"], row["goal"], *cells, "yes" if row["met"] else "NO")
    console.print(times, reached)
    console.print(f"imported of torch, jax and tensorflow: {' '.join(record['imported']) or 'none'}")


if __name__ == "__main__":
    main()
