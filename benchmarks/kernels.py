"""The kernels for TPUs, compiled for TPUs that are not there: their schedules and what they hold.

python -m benchmarks.kernels [--chips v5e,v5p,v6e] [--lengths 4096,16384] [--dtypes bfloat16,float32] [--json FILE]

This needs libtpu (pip install 'jax[tpu]'), which has the compiler. Each program is compiled in a process of its own,
whose compiler writes the instructions of each kernel down. Times are estimates: bundles of instructions (one a cycle)
times how often they run, over the clock, and the compiler's own cycles of what runs beside the kernels. No transfer
between memories is in them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHIPS = {"v5e": ("v5e:2x2", 1.5), "v5p": ("v5p:2x2x1", 1.75), "v6e": ("v6e:2x2", 1.75)}  # topology, GHz
HEADS, HEAD, BLOCK = 12, 64, 64  # of the base model
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
NO_COMPILER = "libtpu is not installed, which has the compiler for TPUs: pip install 'jax[tpu]'"


def has_compiler() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def measured(chip: str, dtype: str, length: int) -> dict[str, Any]:
    """Compile attention and its gradient in another process, and say what the compiler made of them."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.kernels", "--one", chip, dtype, str(length)],
            env=os.environ | ENVIRONMENT | {"LIBTPU_INIT_ARGS": flags},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1]}
        row = json.loads(done.stdout.splitlines()[-1])
        for kernel in ("forward", "backward"):
            row[kernel] |= schedule(Path(folder), f"bigbird_{kernel}")
            row[kernel]["ms"] = _milliseconds(row[kernel], row["groups"], CHIPS[chip][1])
        beside = {name: row[name]["cycles_beside"] / CHIPS[chip][1] / 1e6 for name in ("forward", "gradient")}
        row["forward_ms"] = row["forward"]["ms"] + beside["forward"]
        row["gradient_ms"] = row["forward"]["ms"] + row["backward"]["ms"] + beside["gradient"]
        return row


def _milliseconds(kernel: dict[str, Any], groups: int, gigahertz: float) -> float:
    return groups * (kernel["steps"] * kernel["bundles_a_step"] + kernel["bundles_once"]) / gigahertz / 1e6


def compiled(chip: str, dtype: str, length: int) -> dict[str, Any]:
    """Compile both programs, and return what they say of themselves."""
    import jax
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    from bigbird_port.families.bigbird.config import BigBirdConfig
    from bigbird_port.sparse.formulation import FORMULATIONS
    from bigbird_port.sparse.pattern import layer_pattern
    from models_flax.attention import kernels
    from models_flax.attention.block_sparse import block_sparse_attention
    from models_flax.attention.lists import key_lists

    config = BigBirdConfig(max_position_embeddings=length, max_encoder_length=length)
    lists = key_lists(layer_pattern(config, 1, length))
    assert lists is not None

    def attention(mask: Any, *qkv: Any) -> Any:
        heads = (x.reshape(1, length, HEADS, HEAD).swapaxes(1, 2) for x in qkv)
        context = block_sparse_attention(*heads, mask, lists, BLOCK, FORMULATIONS["flax", "tpu"])
        return context.reshape(1, length, -1)

    def gradient(mask: Any, grad: Any, *qkv: Any) -> Any:
        context, pull = jax.vjp(lambda *x: attention(mask, *x), *qkv)
        return context, pull(grad)

    device = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip][0]).devices[0]
    on_it = SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((1, length, HEADS * HEAD), dtype, sharding=on_it)
    mask = jax.ShapeDtypeStruct((1, length), bool, sharding=on_it)
    row: dict[str, Any] = {"groups": HEADS * HEAD // 128}
    T = lists.counts.shape[1]
    row["lists"], row["scalars_KiB"] = T, 4 * (2 * T + 2 * 2 * T * lists.counts.shape[2]) / 1024
    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        for name, run, arguments in (
            ("forward", attention, (mask, x, x, x)),
            ("gradient", gradient, (mask, x, x, x, x)),
        ):
            program = jax.jit(run).lower(*arguments).compile()
            cycles = re.findall(r'estimated_cycles":"(\d+)"', _entry(program.as_text()))
            row[name] = {"cycles_beside": sum(map(int, cycles))}
            row[name]["temporary_MiB"] = program.memory_analysis().temp_size_in_bytes / 2**20
    row["backward"] = {}
    for name in ("forward", "backward"):
        row[name]["steps"] = -(-T // kernels.LISTS_AT_ONCE)
    return row


def _entry(text: str) -> str:
    return text[text.index("\nENTRY ") :]


_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s*(?:LB|PF|PB|LH|LE|CT)?\s*:\s*(>*)\s*(.*)$")


def schedule(folder: Path, kernel: str) -> dict[str, Any]:
    """What a step of a kernel's grid takes: bundles, spills, and the share of the units that is used.

    A part that a branch leaps over, and that has no matrix product, runs once for each group of heads: it fetches,
    clears or writes out.
    """
    depths, texts = _bundles(sorted(folder.glob(f"*{kernel}*-final_bundles.txt"))[-1])
    lines = sorted(folder.glob(f"*{kernel}*final_hlo-static-per-bundle-utilization.txt"))[-1].read_text().splitlines()
    names = [x.strip() for x in lines[1].split(",")]
    capacity = [int(x) for x in lines[2].split()]
    used = [list(map(int, x.split())) for x in lines[4:] if re.fullmatch(r"[\d ]+", x)]
    assert len(used) == len(texts), f"{len(used)} rows of use, {len(texts)} bundles of {kernel}"
    leapt = _leapt_over(texts, [row[names.index("MXU")] > 0 for row in used])
    body = [i for i, depth in enumerate(depths) if depth and i not in leapt]
    totals = {name: sum(used[i][c] for i in body) for c, name in enumerate(names)}
    trips = [int(x) for i in leapt for x in re.findall(r"(\d+) /\* loop exit test", texts[i])]
    once = sum(max(trips, default=1) if depths[i] > 1 else 1 for i in leapt)
    shares = {name: totals[name] / size / len(body) for name, size in zip(names, capacity, strict=True)}
    return {
        "bundles_a_step": len(body),
        "bundles_once": once,
        "spills": totals["VSTORE:SPILL"],
        "use": {name: round(share, 3) for name, share in shares.items()},
    }


def _bundles(path: Path) -> tuple[list[int], list[str]]:
    """The depth of each bundle in loops, and its text."""
    depths: list[int] = []
    texts: list[str] = []
    for line in path.read_text().splitlines():
        if match := _BUNDLE.match(line):
            depths.append(len(match[1]))
            texts.append(match[2])
        elif texts:
            texts[-1] += line
    return depths, texts


def _leapt_over(texts: list[str], product: list[bool]) -> set[int]:
    ends = {name: i for i, text in enumerate(texts) for name in re.findall(r"Start/End empty region (\d+)", text)}
    found: set[int] = set()
    for i, text in enumerate(texts):
        branch = re.search(r"sbr\.rel \(.*?\) target = \$region(\d+)", text)
        end = ends.get(branch[1], -1) if branch else -1
        if end > i and not any(product[i + 1 : end]):
            found |= set(range(i + 1, end))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels")
    parser.add_argument("--chips", default=",".join(CHIPS))
    parser.add_argument("--lengths", default="4096,16384")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(compiled(given.one[0], given.one[1], int(given.one[2]))))
        return
    if not has_compiler():
        print(f"skipped: {NO_COMPILER}")
        return
    rows = {}
    columns = ["TPU", "type", "tokens", "est ms forward", "gradient", "bundles a step", "spills", "scalars KiB"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for chip in given.chips.split(","):
        for length in given.lengths.split(","):
            for dtype in given.dtypes.split(","):
                row = rows[f"{chip} {dtype} {length}"] = measured(chip, dtype, int(length))
                print(f"| {chip} | {dtype} | {length} | {_cells(row)} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    if any("error" in row for row in rows.values()):
        sys.exit(1)


def _cells(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"does not compile: {row['error']}"
    of_both = [[row[kernel][name] for kernel in ("forward", "backward")] for name in ("bundles_a_step", "spills")]
    cells = (f"{row['forward_ms']:.3f}", f"{row['gradient_ms']:.3f}", *(" + ".join(map(str, x)) for x in of_both))
    return " | ".join((*cells, f"{row['scalars_KiB']:.0f}"))


if __name__ == "__main__":
    main()
