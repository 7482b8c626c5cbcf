"""Memory and time of ``parity`` on a random model of base width, each head in a process of its own.

Peak memory is told beside its goal: the interpreter with the frameworks imported, the two models, and 1 GiB.

    python -m benchmarks.parity [--layers 12] [--length 4096] [--batch 2] [--head all] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MIB = 2**20
CLI = "from bigbird_port.cli import main; main()"
FRAMEWORKS = "import torch, jax, flax.linen, models_torch, models_flax; jax.numpy.zeros(1).block_until_ready()"
MAKE = """
import sys, models_flax, models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
config = BigBirdConfig(num_hidden_layers=int(sys.argv[2]), max_position_embeddings=max(4096, int(sys.argv[3])))
models_torch.BigBirdForPreTraining.from_config(config, 0).save_pretrained(f"{sys.argv[1]}/torch")
models_flax.FlaxBigBirdForPreTraining.from_config(config, 0).save_pretrained(f"{sys.argv[1]}/flax")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--head", action="append", help="a head, or all: every head in one process (the default)")
    parser.add_argument("--folder", type=Path, help="where to work; a new folder in it is made and removed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        run([sys.executable, "-c", MAKE, name, str(arguments.layers), str(arguments.length)])
        models = sum(path.stat().st_size for path in folder.glob("*/*model*")) / MIB
        interpreter = run([sys.executable, "-c", FRAMEWORKS])["peak_mib"]
        options = ["--length", str(arguments.length), "--batch", str(arguments.batch)]
        command = [sys.executable, "-c", CLI, "parity", name, *options, "--head"]
        runs = {head: run([*command, head]) for head in arguments.head or ["all"]}
    goal = interpreter + models + 1024
    record: dict[str, Any] = {
        **{name: getattr(arguments, name) for name in ("layers", "length", "batch")},
        "interpreter_mib": interpreter,
        "models_mib": models,
        "goal_mib": goal,
        "runs": runs,
    }
    report(record)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def run(command: list[str]) -> dict[str, float]:
    """Run one process to its end: wall and processor seconds, and its peak memory."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read())
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


def report(record: dict[str, Any]) -> None:
    print("{layers} layers of base width, length {length}, batch {batch}".format(**record))
    print("interpreter with frameworks {interpreter_mib:.0f} MiB, two models {models_mib:.0f} MiB".format(**record))
    for head, figures in record["runs"].items():
        text = "{wall_s:.1f} s, {cpu_s:.1f} s of processor time, peak {peak_mib:.0f} MiB".format(**figures)
        print(f"{head}: {text}; goal {record['goal_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
