"""From a fresh process to a base model's first output: import, load, and one text of 512 tokens, one thread.

Processes of ours and of transformers' load the same folder in turn (the file is in the system's cache); outputs are
checked for equality to 1e-5 of the largest value. Seconds are the clock's, MiB the process's peak; medians.

    python benchmarks/first_call.py [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from attention import machine

LENGTH = 512
IDS = "import numpy as np; ids = np.random.default_rng(0).integers(5, 50358, (1, 512))"
END = """
import json, resource
np.save({out!r}, hidden)
print(json.dumps({{"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}}))
"""
# What each process runs; {folder} is the model's.
TORCH = {
    "transformers": """
import torch; torch.set_num_threads(1)
from transformers import BigBirdModel
model = BigBirdModel.from_pretrained({folder!r}, attention_type="original_full")
with torch.no_grad():
    hidden = model(torch.from_numpy(ids)).last_hidden_state.numpy()
""",
    "ours": """
import torch; torch.set_num_threads(1)
from models_torch import BigBirdModel
model = BigBirdModel.from_pretrained({folder!r}, attention_type="original_full")
with torch.no_grad():
    hidden = model(torch.from_numpy(ids)).last_hidden_state.numpy()
""",
}
# The Flax side: the same two programs with FlaxBigBirdModel, and a folder with flax_model.msgpack.
PROGRAMS: dict[str, dict[str, str]] = {"torch": TORCH}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write_model(folder)
        found = {name: measure(programs, folder, arguments.repeats) for name, programs in PROGRAMS.items()}
    print("framework  transformers s  ours s  ratio  transformers MiB  ours MiB")
    for name, row in found.items():
        peer, ours = row["transformers"], row["ours"]
        print(
            f"{name:9}  {peer['s']:14.2f}  {ours['s']:6.2f}  {peer['s'] / ours['s']:4.2f}x  "
            f"{peer['mib']:16.0f}  {ours['mib']:8.0f}"
        )
    if arguments.json:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine(), "versions": versions, "results": found}, file, indent=1)


def write_model(folder: Path) -> None:
    """Write a base model with initial weights, as transformers reads it, in a process of its own."""
    program = (
        "from bigbird_port.config import BigBirdConfig; from models_torch import BigBirdModel; "
        f"BigBirdModel.from_config(BigBirdConfig()).save_pretrained({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def measure(programs: dict[str, str], folder: Path, repeats: int) -> dict[str, Any]:
    """Median seconds and MiB of each program, run in turn after an untimed run of each."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    peaks: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        outputs = []
        for name, program in programs.items():
            out = str(folder / "hidden.npy")
            start = time.perf_counter()
            printed = run(IDS + program.format(folder=str(folder)) + END.format(out=out))
            if repeat:
                times[name].append(time.perf_counter() - start)
                peaks[name].append(json.loads(printed.splitlines()[-1])["mib"])
            outputs.append(np.load(out))
        difference = np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max()
        if not difference < 1e-5:
            raise SystemExit(f"the two differ by {difference}: nothing to time")
    return {name: {"s": statistics.median(times[name]), "mib": statistics.median(peaks[name])} for name in programs}


def run(program: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "USE_TF": "0", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
