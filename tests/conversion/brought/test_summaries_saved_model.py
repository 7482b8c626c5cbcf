"""SavedModels of the summarisation models: the original's variables under their own names, through to every target."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.store import read
from bigbird_port.formats.tensorflow.bundle_writer import TensorBundleFormat
from tests.conftest import GOLDEN, require
from tests.conversion.matrix import ALL, weights

# As a program of TensorFlow 2 saves them: its keys follow the objects, and their names are in the object graph.
PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
values = np.load(f"{sys.argv[1]}/values.npz")
model = tf.Module()
model.tracked = [tf.Variable(values[name], name=name) for name in np.random.default_rng(0).permutation(values.files)]
tf.saved_model.save(model, f"{sys.argv[1]}/model")
"""


def variables(checkpoint):
    store = open_store(checkpoint).store
    return {name: read(store, name) for name in store.tensors if "Adafactor" not in name and name != "global_step"}


@pytest.mark.parametrize("name", ["mini-pegasus", "tiny-coupled"])
def test_an_estimators_export_is_converted(tmp_path, name):
    checkpoint = require(GOLDEN[name]).checkpoint
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    write_arrays(folder / "variables", TensorBundleFormat("variables"), variables(checkpoint))
    report = convert(folder, tmp_path / "out", Settings(to=ALL, num_attention_heads=2))
    assert report.plan.head == "conditional-generation"
    assert all(weights(tmp_path / "out" / target) == weights(checkpoint) for target in ALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini-pegasus", "tiny-coupled"])
def test_what_tensorflow_saves_is_converted(tmp_path, name):
    pytest.importorskip("tensorflow", reason="TensorFlow writes the SavedModel")
    checkpoint = require(GOLDEN[name]).checkpoint
    np.savez(tmp_path / "values.npz", **variables(checkpoint))
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], check=True, env=environment, capture_output=True)
    flags = checkpoint / "summarization.config"
    convert(tmp_path / "model", tmp_path / "out", Settings(to=ALL, config_file=flags))
    assert all(weights(tmp_path / "out" / target) == weights(checkpoint) for target in ALL)
