import hashlib
import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbird_port.conversion.convert import make_plan
from bigbird_port.families.bigbird.flags import flags_json
from bigbird_port.formats.store import read
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.bundle_writer import _DTYPES, TensorBundleFormat
from bigbird_port.formats.tensorflow.locate import find_checkpoint
from bigbird_port.formats.tensorflow.table_reader import read_table
from bigbird_port.formats.tensorflow.table_writer import write_table
from tests.conftest import DEMO, FOLDERS, GOLDEN, require
from tests.formats.execute import files_of, numbered, planned, write_all
from tests.formats.strategies import array_sets, same

# In a process of its own, as its import is slow and noisy. It takes jobs (what, *arguments) and prints their results.
TENSORFLOW = """
import hashlib, json, sys
import numpy as np
import safetensors.numpy
import tensorflow as tf

def write(folder):
    arrays = safetensors.numpy.load_file(folder + "/in.safetensors")
    names = sorted(arrays)  # as a Saver gives them
    tf.raw_ops.SaveV2(prefix=folder + "/theirs/model.ckpt-0", tensor_names=names, shape_and_slices=[""] * len(names),
                      tensors=[tf.constant(arrays[name], shape=arrays[name].shape) for name in names])

def read(folder):
    reader = tf.train.load_checkpoint(folder)
    found = {}
    for name in reader.get_variable_to_shape_map():
        values = np.asarray(reader.get_tensor(name))
        found[name] = [values.dtype.name, list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]
    return found

def refuse(prefix, name):
    try:
        tf.train.load_checkpoint(prefix).get_tensor(name)
    except Exception as error:
        return type(error).__name__ + ": " + str(error)

def state(folder):
    found = tf.train.get_checkpoint_state(folder)
    return [found.model_checkpoint_path, list(found.all_model_checkpoint_paths)]

print(json.dumps([globals()[what](*arguments) for what, *arguments in json.loads(sys.argv[1])]))
"""


def mixed():
    """All dtypes, scalars, empty arrays, and names enough for several index blocks."""
    arrays = {f"types/{name}": numbered(ml_dtypes.bfloat16 if name == "bfloat16" else name, 2, 3) for name in _DTYPES}
    arrays |= {"scalar": numbered("f4"), "empty": numbered("f4", 0, 4), "é\xff": numbered("i8", 300)}
    arrays |= {f"bert/encoder/layer_{i}/attention/self/query/{'k' * (i % 37)}": numbered("f4", i % 5, start=i)
               for i in range(9000)}  # fmt: skip
    return arrays


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory):
    """Folders that TensorFlow wrote, and what it said of ours (one process for all of it)."""
    pytest.importorskip("tensorflow", reason="TensorFlow is the witness")
    import safetensors.numpy

    root = tmp_path_factory.mktemp("bundles")
    sets = {"many": mixed(), "few": {"b": numbered("f4", 3, 2), "a": numbered("f8", 5)}}
    jobs = []
    for name, arrays in sets.items():
        (root / name / "theirs").mkdir(parents=True)
        safetensors.numpy.save_file(arrays, root / name / "in.safetensors")
        jobs.append(("write", str(root / name)))
    for name, limit in (("whole", None), ("sharded", 3000)):
        (root / name).mkdir()
        write_all(root / name, TensorBundleFormat(max_shard_size=limit), sets["many"])
        jobs += [("read", str(root / name)), ("state", str(root / name))]
    jobs.append(("refuse", str(damage(root)), "b"))
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", TENSORFLOW, json.dumps(jobs)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    results = json.loads(run.stdout.splitlines()[-1])
    return root, sets, {job[0] + " " + job[1].rsplit("/", 1)[-1]: result
                        for job, result in zip(jobs, results, strict=True)}  # fmt: skip


def damage(root):
    """One of our checkpoints with a bit of a value flipped."""
    folder = root / "damaged"
    folder.mkdir()
    write_all(folder, TensorBundleFormat(), {"a": numbered("f4", 9), "b": numbered("f4", 9, start=50)})
    data = bytearray((folder / "model.ckpt-0.data-00000-of-00001").read_bytes())
    data[-3] ^= 1
    (folder / "model.ckpt-0.data-00000-of-00001").write_bytes(data)
    return folder


@pytest.mark.parametrize("name", ["many", "few"])
def test_it_is_tensorflows_byte_for_byte(witnessed, name):
    root, sets, _ = witnessed
    ours = files_of(TensorBundleFormat(), sets[name])
    theirs = {path.name: path.read_bytes() for path in (root / name / "theirs").iterdir()}
    del ours["checkpoint"]  # the Saver writes it, not SaveV2
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2
    for file, data in theirs.items():
        assert ours[file] == data, file
    assert (name == "many") == (len(theirs["model.ckpt-0.index"]) > 2 * 262_144)


@pytest.mark.parametrize(("name", "num_shards"), [("whole", 1), ("sharded", 25)])
def test_tensorflow_reads_every_tensor(witnessed, name, num_shards):
    root, sets, said = witnessed
    expected = {key: [array.dtype.name, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
                for key, array in sets["many"].items()}  # fmt: skip
    assert said[f"read {name}"] == expected
    prefix = str(root / name / "model.ckpt-0")
    assert said[f"state {name}"] == [prefix, [prefix]]
    assert len(list((root / name).glob("*.data-*"))) == num_shards


def test_tensorflow_checks_our_checksums(witnessed):
    """The negative control: one flipped bit, and it refuses the tensor."""
    assert "Checksum does not match" in witnessed[2]["refuse damaged"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_checkpoint_of_the_original_code_is_written_again_byte_for_byte(name):
    prefix = find_checkpoint(require(GOLDEN[name]).checkpoint)
    bundle = TensorBundle(prefix)
    arrays = {key: bundle.read(key) for key in bundle.entries}
    assert len(arrays) > 100
    for file, data in files_of(TensorBundleFormat(prefix.name), arrays).items():
        if file != "checkpoint":  # it may list older checkpoints
            assert data == (prefix.parent / file).read_bytes(), file


def test_a_folder_that_is_written_can_be_converted(tmp_path):
    """Data, index, state file and flags together are what make_plan wants, and it finds the same model in them."""
    expected = make_plan(DEMO)
    store = expected.source.opened.store
    write_all(tmp_path, TensorBundleFormat(), {key: read(store, key) for key in store.tensors})
    flags, _ = flags_json(expected.config)
    (tmp_path / "pretrain.config").write_text(json.dumps(flags))
    found = make_plan(tmp_path)
    assert (found.config, found.head, found.match) == (expected.config, expected.head, expected.match)


@settings(max_examples=30, deadline=None)
@given(array_sets, st.sampled_from([None, 1, 100]))
def test_our_reader_reads_it(tmp_path_factory, arrays, limit):
    arrays = {name: array for name, array in arrays.items() if name.isprintable()}  # it refuses other names
    folder = tmp_path_factory.mktemp("bundle")
    write_all(folder, TensorBundleFormat("model.ckpt-7", limit), arrays)
    bundle = TensorBundle(find_checkpoint(folder))
    same({name: bundle.read(name) for name in bundle.entries}, arrays)


def test_tables_of_many_blocks_read_back():
    pairs = [(b"", b"header"), *((f"key {i:05d}".encode() + b"\xff" * (i % 3), bytes(i % 300)) for i in range(700))]
    for block_size in (1, 100, 4096, 1 << 20):
        assert list(read_table(write_table(pairs, block_size))) == pairs
    assert list(read_table(write_table([]))) == []


def test_keys_must_rise():
    with pytest.raises(ValueError, match=r"b'a' does not come after b'a'"):
        write_table([(b"a", b""), (b"a", b"")])


@pytest.mark.parametrize("arrays", [{"x": np.zeros(2, "S3")}, {"": np.zeros(2, "f4")}])
def test_what_it_cannot_hold_is_named(arrays):
    with pytest.raises(ValueError, match=r"cannot hold '(x' of dtype \|S3|')"):
        TensorBundleFormat().plan(planned(arrays))
