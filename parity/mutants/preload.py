"""What all workers import alike, once, before they fork: nothing of the project, whose modules may be mutants."""

import importlib
import os
from contextlib import suppress
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in (
    *("numpy", "safetensors.numpy", "ml_dtypes", "threadpoolctl", "coverage", "sentencepiece", "tokenizers"),
    *("google.protobuf", "msgpack", "google_crc32c", "jax.numpy", "jax.experimental.shard_map", "flax.linen"),
    *("torch.export", "torch._dynamo", "torch.fx.experimental.symbolic_shapes"),
):
    with suppress(ImportError):
        importlib.import_module(_name)

with suppress(ImportError):  # what this imports takes seconds

    @dataclass
    class _Registered:
        field: int = 0

    importlib.import_module("torch.export").register_dataclass(_Registered)
