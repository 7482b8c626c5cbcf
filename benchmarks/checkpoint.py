"""Write a checkpoint of random weights as training leaves one: every variable, both Adam slots of each, and the step.

python -m benchmarks.checkpoint SIZE FOLDER
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.flags import flags_json
from bigbird_port.formats.file_plan import Planned
from bigbird_port.formats.filling import open_files
from bigbird_port.formats.tensorflow.bundle_writer import TensorBundleFormat
from bigbird_port.schema.table import weights_of

SIZES = {
    "small": {"vocab_size": 4000, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    | {"intermediate_size": 1024, "max_position_embeddings": 1024},
    "100MB": {"vocab_size": 16000, "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4}
    | {"intermediate_size": 1024, "max_position_embeddings": 1024},
    "embedding": {"vocab_size": 160_000, "hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4}
    | {"intermediate_size": 1024, "max_position_embeddings": 1024},
    "base": {"vocab_size": 50358},
    "large": {"vocab_size": 50358, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    | {"intermediate_size": 4096},
}
FLAGS = {"optimizer": "AdamWeightDecay", "learning_rate": 1e-4, "num_train_steps": 100000, "num_warmup_steps": 10000}
SLOTS = ("", "/AdamWeightDecayOptimizer", "/AdamWeightDecayOptimizer_1")


def main() -> None:
    size, folder = sys.argv[1:]
    print(write_checkpoint(Path(folder), size))


def write_checkpoint(folder: Path, size: str, slots: tuple[str, ...] = SLOTS) -> int:
    """Write one, with its flags, into a new folder; returns its number of tensors."""
    folder.mkdir(parents=True)
    config = BigBirdConfig(**SIZES[size])
    tensors = {
        row.original[0].replace("{scope}", "bert") + slot: Planned(np.dtype(np.float32), row.shape(config))
        for row in weights_of(config, "pretraining", "torch")
        for slot in slots
    }
    tensors |= {"global_step": Planned(np.dtype(np.int64), ())} if len(slots) > 1 else {}
    checkpoint, crc32c = TensorBundleFormat(prefix_name="model.ckpt-0"), {}
    with open_files(checkpoint.plan(tensors), folder) as files:
        for name, values in random_values(tensors):
            data = values.view(np.uint8)
            data.flags.writeable = False
            crc32c[name] = google_crc32c.value(data)
            files[name].write(0, data)
    with open_files(checkpoint.finish(tensors, crc32c), folder):
        pass
    (folder / "pretrain.config").write_text(json.dumps(flags_json(config)[0] | FLAGS))
    return len(tensors)


def random_values(tensors: dict[str, Planned]) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "i":
            yield name, np.full(1, 20000, tensor.dtype)
            continue
        values = 0.02 * rng.standard_normal(math.prod(tensor.shape), np.float32)
        yield name, values**2 if name.endswith(SLOTS[2]) else values + np.float32(name.endswith("gamma"))


if __name__ == "__main__":
    main()
