"""Write the seeds of fuzz_readers.py, real files each: python tests/fuzz/make_corpus.py CORPUS [--torch]."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path

import flax.serialization
import numpy as np
import safetensors.numpy

sys.path.insert(0, str(Path(__file__).parents[2]))

from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.saved_model import GRAPH, read_string
from tests.conftest import DEMO
from tests.formats.hostile.stores import arrays, nested, write_with_tensorflow

ORDER = ("index", "checked_index", "safetensors_file", "shard_index", "flax", "config", "graph", "string")


def seeds(folder):
    """Yield (target, bytes)."""
    small = {name: values for name, values in arrays().items() if values.size < 20}
    write_with_tensorflow(folder)
    indices = [*folder.rglob("*.index"), DEMO / "model.ckpt-30.index"]
    for path in indices:
        yield "index", path.read_bytes()
        yield "checked_index", path.read_bytes()
    for named in (small, dict(list(small.items())[:2]), {}):
        yield "safetensors_file", safetensors.numpy.save(named, metadata={"format": "pt"})
        yield "flax", flax.serialization.to_bytes(nested(named))
    flax.serialization.MAX_CHUNK_SIZE = 16
    yield "flax", flax.serialization.msgpack_serialize({"a": {"b": np.arange(30, dtype=np.float32)}})
    eight = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}}).encode()
    yield "safetensors_file", len(eight).to_bytes(8, "little") + eight + bytes(3)
    names = {f"t{i}": f"shard-{i}.safetensors" for i in range(2)}
    yield "shard_index", json.dumps({"metadata": {"total_size": 1}, "weight_map": names}).encode()
    yield "config", (DEMO / "pretrain.config").read_bytes()
    yield "config", json.dumps({"model_type": "big_bird", "hidden_size": 8, "num_attention_heads": 2}).encode()
    for prefix in ("module/variables/variables", "keras/variables/variables", "slots/model"):
        bundle = TensorBundle(folder / prefix)
        yield "graph", read_string(bundle, GRAPH)
        run = bundle.runs[GRAPH][0]
        raw = run.path.read_bytes()[run.offset : run.end]
        yield "string", run.crc32c.to_bytes(4, "little") + raw


def torch_seeds():
    """Yield files of torch, of today's kind and of the one before 1.6."""
    import torch

    values = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(1)}
    for is_zip in (True, False):
        data = io.BytesIO()
        torch.save(values, data, _use_new_zipfile_serialization=is_zip)
        yield data.getvalue()


def main():
    """Write each seed with the number of its target before it."""
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    if "--torch" in sys.argv:
        for i, data in enumerate(torch_seeds()):
            (corpus / f"{i:03d}-torch_file").write_bytes(b"\0" + data)
        return
    with tempfile.TemporaryDirectory() as folder:
        for i, (target, data) in enumerate(seeds(Path(folder))):
            (corpus / f"{i:03d}-{target}").write_bytes(bytes([ORDER.index(target)]) + data)


if __name__ == "__main__":
    main()
