"""Size and speed of an ONNX file: a masked-lm model of base size on one thread, beside the torch model's own forward.

    python -m benchmarks.export [--layers 12] [--length 1024] [--rounds 7] [--json FILE]

CPU seconds are counted, because what else a machine does changes the time on the clock.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import tempfile
import time
from pathlib import Path

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = measure(Path(folder), arguments.layers, arguments.length, arguments.rounds)
    for name, value in record.items():
        print(f"{name}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, layers: int, length: int, rounds: int) -> dict[str, float]:
    import torch

    import models_torch
    from bigbird_port.families.bigbird.config import BigBirdConfig
    from parity.exports.shape import NAMES, shape_for
    from parity.exports.to_onnx import FILE, write_onnx

    torch.set_num_threads(1)
    config = BigBirdConfig(num_hidden_layers=layers, max_encoder_length=length)
    model = models_torch.BigBirdForMaskedLM.from_config(config, 0)
    model.save_pretrained(folder)
    start = time.process_time()
    write_onnx(folder, model.eval(), shape_for(config, "masked-lm", None))
    export_seconds = time.process_time() - start
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
    ids = torch.randint(5, config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    given = dict(zip(NAMES, (ids, torch.ones_like(ids), torch.zeros_like(ids)), strict=True))
    arrays = {name: x.numpy() for name, x in given.items()}

    def of_torch() -> float:
        with torch.no_grad():
            start = time.process_time()
            model(**given)
            return time.process_time() - start

    def of_onnx() -> float:
        start = time.process_time()
        session.run(None, arrays)
        return time.process_time() - start

    times = [(of_torch(), of_onnx()) for _ in range(rounds + 1)][1:]  # the first round warms up
    torch_seconds, onnx_seconds = (statistics.median(x) for x in zip(*times, strict=True))
    weights, size = (sum(path.stat().st_size for path in folder.glob(name)) for name in ("*.safetensors", f"{FILE}*"))
    return {
        "layers": layers,
        "length": length,
        "torch_seconds": round(torch_seconds, 3),
        "onnx_seconds": round(onnx_seconds, 3),
        "onnx_over_torch": round(onnx_seconds / torch_seconds, 3),
        "weights_mib": round(weights / MIB, 1),
        "onnx_mib": round(size / MIB, 1),
        "size_over_weights": round(size / weights, 4),
        "export_seconds": round(export_seconds, 1),
    }


if __name__ == "__main__":
    main()
