"""One small model in every container and wrapper in which people keep weights."""

from __future__ import annotations

import json

import msgpack
import numpy as np
import safetensors.numpy

from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.tensorflow.bundle_writer import TensorBundleFormat
from bigbird_port.schema.table import weights_of
from bigbird_port.schema.weights import to_framework
from tests.conversion.brought.sources import CONFIG, numbered

HEAD = "pretraining"
WEIGHTS = numbered(HEAD)
AVERAGES = numbered(HEAD, seed=1)


def torch_arrays(weights=WEIGHTS, prefix=""):
    return {prefix + name: values for name, values in to_framework(weights, CONFIG, HEAD, "torch").items()}


def flax_tree(weights=WEIGHTS):
    tree = {}
    for name, values in to_framework(weights, CONFIG, HEAD, "flax").items():
        *path, leaf = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = values
    return tree


def original_arrays(weights=WEIGHTS, prefix=""):
    rows = weights_of(CONFIG, HEAD)
    return {prefix + row.original[0].replace("{scope}", "bert"): weights[row.name] for row in rows}


def write_config(folder, architecture=HEADS[HEAD].class_name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_json_values(architecture)))
    return folder


def write_bin(folder, value):
    import torch

    def tensors(value):
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value.copy())
        return {key: tensors(each) for key, each in value.items()} if isinstance(value, dict) else value

    torch.save(tensors(value), write_config(folder) / "pytorch_model.bin")
    return folder


def write_safetensors(folder, arrays, metadata=None):
    safetensors.numpy.save_file(arrays, write_config(folder) / "model.safetensors", metadata)
    return folder


def pack(value):
    """As flax.serialization.to_bytes packs it."""
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))
    return {key: pack(each) for key, each in value.items()} if isinstance(value, dict) else value


def write_msgpack(folder, tree, name="flax_model.msgpack"):
    (write_config(folder) / name).write_bytes(msgpack.packb(pack(tree), strict_types=True))
    return folder


def write_bundle(folder, arrays):
    write_arrays(write_config(folder), TensorBundleFormat("model.ckpt-7"), arrays)
    return folder


def write_export(folder, arrays):
    """A SavedModel of an Estimator: variables by name."""
    (write_config(folder) / "variables").mkdir()
    write_arrays(folder / "variables", TensorBundleFormat("variables"), arrays)
    (folder / "saved_model.pb").write_bytes(b"")
    assert open_store(folder).style == "original"
    return folder


def optimizer_state(weights):
    """As optax keeps it, what is None and lists included."""
    return {"0": {"count": np.array(3, np.int32), "mu": flax_tree(weights), "nu": flax_tree(weights)}, "1": None}
