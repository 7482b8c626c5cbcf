"""Small sources to look into: a model of numbers without symmetry, and ways to damage what was written of it."""

from __future__ import annotations

import json

import numpy as np
import safetensors.numpy

from bigbird_port.conversion.manifest import write_manifest
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.store import read
from bigbird_port.models.folder import write_model_folder
from bigbird_port.schema.table import weights_of

CONFIG = BigBirdConfig(
    vocab_size=410,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=32,
    num_labels=3,
)


def numbered(head="pretraining", config=CONFIG, seed=0):
    """Canonical weights of a head, each value drawn on its own."""
    rng = np.random.default_rng(seed)
    rows = weights_of(config, head, "torch")
    return {row.name: rng.standard_normal(row.shape(config)).astype(np.float32) * 0.1 + 0.5 for row in rows}


def write_torch(folder, weights, head="pretraining", config=CONFIG):
    """A torch folder, as transformers would write it."""
    folder.mkdir(parents=True)
    write_model_folder(folder, weights, config, head, "torch")
    return folder


def rewrite(folder, change, file="model.safetensors"):
    """Load a folder's arrays, change them, and save them."""
    arrays = safetensors.numpy.load_file(folder / file)
    changed = change(arrays) or arrays
    safetensors.numpy.save_file({name: np.ascontiguousarray(values) for name, values in changed.items()}, folder / file)
    return folder


def read_all(path):
    """Every tensor of a source under its own name."""
    store = open_store(path).store
    return {name: read(store, name) for name in store.tensors}


def change_manifest(out, change):
    """Change a manifest as one who knows how it is made would: with a new digest."""
    values = json.loads((out / "manifest.json").read_text())
    change(values)
    added = ("digest", "manifest_version", "schema_version")
    write_manifest(out / "manifest.json", {name: value for name, value in values.items() if name not in added})
