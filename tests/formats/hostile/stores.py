"""Small real files of every kind, written by the library whose format it is."""

import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from bigbird_port.formats.store import PIECE_BYTES, read

# TensorFlow in a process of its own: its import is slow and noisy.
TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf
folder = sys.argv[1]
rng = np.random.default_rng(0)

class Dense(tf.Module):
    def __init__(self, shape, name):
        super().__init__(name=name)
        with self.name_scope:
            self.kernel = tf.Variable(rng.standard_normal(shape).astype("f4"), name="kernel")
            self.bias = tf.Variable(rng.standard_normal(shape[1:]).astype("f4"), name="bias")

class Attention(tf.Module):
    def __init__(self):
        super().__init__(name="big_bird_attention")
        with self.name_scope:
            self.query, self.key = Dense((8, 2, 4), "query"), Dense((8, 2, 4), "key")

class Scaffold(tf.Module):
    def __init__(self, i):
        super().__init__(name=f"transformer_scaffold_{i}" if i else "transformer_scaffold")
        with self.name_scope:
            self.attention = Attention()

class Model(tf.Module):
    def __init__(self):
        super().__init__(name="model")
        self.layers = [Scaffold(i) for i in range(2)]
        self.table = tf.Variable(rng.standard_normal((5, 8)).astype("f4"), name="word_embeddings/embeddings")
        self.nameless = [tf.Variable([float(i)], name="same") for i in range(2)]

model = Model()
tf.saved_model.save(model, f"{folder}/module")

variable = tf.Variable([1.0, 2.0], name="weight")
optimizer = tf.compat.v1.train.AdamOptimizer(0.1)
optimizer.minimize(lambda: tf.reduce_sum(variable**2), var_list=[variable])
tf.train.Checkpoint(variable=variable, optimizer=optimizer).write(f"{folder}/slots/model")

import keras
inputs = keras.Input((4,))
middle = keras.layers.Dense(3, name="first")(inputs)
keras_model = keras.Model(inputs, keras.layers.Dense(2, name="second")(middle))
keras_model.export(f"{folder}/keras", verbose=False)
np.savez(f"{folder}/keras.npz", **{each.path: each.numpy() for each in keras_model.variables})

rows, grid = rng.standard_normal((300, 7)).astype("f4"), rng.standard_normal((100, 70, 3)).astype("f4")
cuts = [("emb/rows", f"300 7 {s},{n}:-", rows[s:s + n]) for s, n in ((250, 50), (0, 100), (100, 150))]
cuts += [("emb/grid", f"100 70 3 {t},50:{s},35:-", grid[t:t + 50, s:s + 35]) for s in (0, 35) for t in (0, 50)]
cuts += [("a\\u00ff\\u0100/columns", f"300 7 -:{s},{n}", rows[:, s:s + n]) for s, n in ((0, 3), (3, 4))]
cuts += [("words", "", np.array(["abc", "x" * 300]))]
for name in ("bfloat16", "float16", "float64", "int32", "int64", "uint8", "int8", "int16", "uint16", "bool"):
    cuts.append((f"type/{name}", "", np.arange(6).reshape(2, 3) % 2 if name == "bool" else np.arange(6).reshape(2, 3)))
names, slices, values = zip(*cuts)
tensors = [tf.cast(each, name[5:]) if name.startswith("type/") else tf.constant(each) for name, _, each in cuts]
tf.raw_ops.SaveV2(prefix=f"{folder}/sliced/model", tensor_names=names, shape_and_slices=slices, tensors=tensors)
np.savez(f"{folder}/sliced.npz", rows=rows, grid=grid)

for name in ("module", "keras"):
    reader = tf.train.load_checkpoint(f"{folder}/{name}/variables/variables")
    keys = [key for key in reader.get_variable_to_shape_map() if not key.startswith("_CHECK")]
    np.savez(f"{folder}/{name}-by-key.npz", **{key.replace("/", "|"): reader.get_tensor(key) for key in keys})
"""


def write_with_tensorflow(folder):
    """Fill a folder with module/, keras/ (SavedModels), slots/ and sliced/ (checkpoints) and what they hold."""
    pytest.importorskip("tensorflow", reason="TensorFlow is the witness")
    for name in ("slots", "sliced"):
        (folder / name).mkdir(parents=True)
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", TENSORFLOW, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def arrays():
    """Numbered values of every type, a scalar and an empty array among them."""
    rng = np.random.default_rng(0)
    named = {
        f"bert/type/{name}": np.arange(6).reshape(2, 3).astype(name)
        for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32")
    }
    return named | {
        "bert/uint64": np.array([1, 1 << 63], np.uint64),
        "bert/flag": np.array([True, False, True]),
        "bert/half": np.array([1.5, -2, 3e38]).astype(ml_dtypes.bfloat16),
        "bert/scalar": np.array(7, np.float32),
        "bert/none": np.zeros((0, 4), np.float32),
        "bert/matrix": rng.standard_normal((33, 5)).astype(np.float32),
    }


def large():
    """An array that needs several pieces, and no whole number of them."""
    return np.arange(PIECE_BYTES // 4 * 2 + 5, dtype=np.float32)


def assert_same(store, expected):
    """Names, types, shapes and bytes."""
    assert set(store.tensors) == set(expected)
    for name, values in expected.items():
        assert (store.tensors[name].dtype, store.tensors[name].shape) == (values.dtype, values.shape), name
        found = read(store, name)
        assert found.dtype == values.dtype, name
        assert found.tobytes() == np.ascontiguousarray(values).tobytes(), name
        sizes = [piece.nbytes for piece in store.pieces(name)]
        assert sum(sizes) == values.nbytes
        assert max(sizes, default=0) <= PIECE_BYTES


def nested(named):
    """Slash-separated names as a tree."""
    tree = {}
    for name, values in named.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = values
    return tree


def write_shards(folder, index, shards, save, extra=None):
    """Write shards, {file: arrays}, and their transformers index."""
    for file, held in shards.items():
        save(held, folder / file)
    names = {name: file for file, held in shards.items() for name in held} | (extra or {})
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    return folder / index
