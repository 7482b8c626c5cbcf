import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.locate import find_checkpoint, find_flags
from bigbird_port.formats.tensorflow.table_reader import masked_crc32c, read_table
from tests.conftest import DEMO, FOLDERS, GOLDEN, require

# TensorFlow in a process of its own: its import is slow and noisy.
READ_WITH_TENSORFLOW = """
import hashlib, json, sys
import numpy as np
import tensorflow as tf
reader = tf.train.load_checkpoint(sys.argv[1])
found = {}
for name in reader.get_variable_to_shape_map():
    values = np.asarray(reader.get_tensor(name))
    found[name] = [values.dtype.name, list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]
print(json.dumps(found))
"""
WRITE_WITH_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf
rng = np.random.default_rng(0)
tensors = {
    "half": rng.standard_normal((3, 5)).astype(np.float16),
    "double": rng.standard_normal((2, 3, 4)),
    "whole": rng.integers(-9, 9, (7,)).astype(np.int32),
    "scalar": np.int64(12),
    "empty": np.zeros((0, 4), np.float32),
    **{f"scope/long/prefix/shared/by/many/names_{i}": np.full((i,), i, np.float32) for i in range(300)},
}
tf.raw_ops.SaveV2(prefix=sys.argv[1], tensor_names=list(tensors), shape_and_slices=[""] * len(tensors),
                  tensors=[tf.constant(x) for x in tensors.values()])
"""


def tensorflow(program, *arguments):
    pytest.importorskip("tensorflow", reason="TensorFlow is the witness")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def assert_same_as_tensorflow(prefix):
    expected = json.loads(tensorflow(READ_WITH_TENSORFLOW, prefix).splitlines()[-1])
    bundle = TensorBundle(prefix)
    assert set(bundle.entries) == set(expected)
    for name, (dtype, shape, digest) in expected.items():
        values = bundle.read(name)
        assert (values.dtype.name, list(values.shape)) == (dtype, shape)
        assert hashlib.sha256(values.tobytes()).hexdigest() == digest
    return bundle


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.quick("mini-pretrain", "tiny-pretrain-bert-names")
def test_every_variable_is_byte_identical_to_tensorflows(name):
    bundle = assert_same_as_tensorflow(find_checkpoint(require(GOLDEN[name]).checkpoint))
    assert len(bundle.entries) > 100


def test_other_types_empty_tensors_and_prefix_compressed_keys(tmp_path):
    tensorflow(WRITE_WITH_TENSORFLOW, tmp_path / "model")
    bundle = assert_same_as_tensorflow(tmp_path / "model")
    assert bundle.read("empty").shape == (0, 4)
    assert bundle.read("scalar") == 12


def copy_checkpoint(folder):
    for file in DEMO.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / "model.ckpt-30"


def test_a_truncated_shard_is_named(tmp_path):
    prefix = copy_checkpoint(tmp_path)
    shard = tmp_path / "model.ckpt-30.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"data-00000-of-00001: truncated: it has \d+ bytes, the index needs \d+"):
        TensorBundle(prefix)


def test_an_index_without_data_is_named(tmp_path):
    prefix = copy_checkpoint(tmp_path)
    (tmp_path / "model.ckpt-30.data-00000-of-00001").unlink()
    with pytest.raises(ValueError, match=r"data-00000-of-00001: the index is there, but this data file is missing"):
        TensorBundle(prefix)


def test_every_flipped_bit_of_a_tensor_is_found(tmp_path):
    prefix = copy_checkpoint(tmp_path)
    shard = tmp_path / "model.ckpt-30.data-00000-of-00001"
    entry = TensorBundle(prefix).entries["bert/pooler/dense/kernel"]
    data = bytearray(shard.read_bytes())
    for byte in (entry.offset, entry.offset + entry.size // 2, entry.offset + entry.size - 1):
        data[byte] ^= 1
        shard.write_bytes(data)
        with pytest.raises(ValueError, match="bert/pooler/dense/kernel does not match its crc32c"):
            TensorBundle(prefix).read("bert/pooler/dense/kernel")
        data[byte] ^= 1


def test_every_damaged_index_is_refused(tmp_path):
    """Each byte in turn, and each length: never another error, and never a quiet success with other values."""
    prefix = copy_checkpoint(tmp_path)
    index = tmp_path / "model.ckpt-30.index"
    whole = index.read_bytes()
    expected = TensorBundle(prefix).entries
    rng = np.random.default_rng(0)
    for at in rng.choice(len(whole), 300, replace=False):
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert TensorBundle(prefix).entries == expected  # a byte that nothing reads (the metaindex)
        except ValueError as error:
            assert "model.ckpt-30.index" in str(error)
    for length in rng.choice(len(whole), 100, replace=False):
        index.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.ckpt-30\.index: damaged index"):
            TensorBundle(prefix)


def test_masked_crc_is_tensorflows():
    assert masked_crc32c(0) == 0xA282EAD8


def test_not_an_index_is_refused():
    with pytest.raises(ValueError, match="last 8 of its 100 bytes are not the magic number.*: fetch it again"):
        list(read_table(b"x" * 100))
    with pytest.raises(ValueError, match="footer"):
        list(read_table(b""))


@pytest.mark.parametrize("given", ["", "model.ckpt-30", "model.ckpt-30.index"])
def test_prefix_index_and_folder_mean_the_same(tmp_path, given):
    prefix = copy_checkpoint(tmp_path)
    assert find_checkpoint(tmp_path / given) == prefix
    assert find_flags(prefix) == tmp_path / "pretrain.config"


def test_a_folder_means_its_newest_checkpoint_wherever_it_was_trained(tmp_path):
    prefix = copy_checkpoint(tmp_path)
    for file in DEMO.glob("model.ckpt-30.*"):
        (tmp_path / file.name.replace("-30", "-10")).write_bytes(file.read_bytes())
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/somewhere/else/model.ckpt-30"\n')
    assert find_checkpoint(tmp_path) == prefix
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(ValueError, match=r"several checkpoints.*model\.ckpt-10, model\.ckpt-30"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ('model_checkpoint_path: "model.ckpt-99"\n', "names model.ckpt-99, but model.ckpt-99.index is not"),
        ("nothing\n", "expected a line"),
    ],
)
def test_a_wrong_checkpoint_file_is_named(tmp_path, state, message):
    copy_checkpoint(tmp_path)
    (tmp_path / "checkpoint").write_text(state)
    with pytest.raises(ValueError, match=message):
        find_checkpoint(tmp_path)


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(ValueError, match="no TensorFlow checkpoint in this folder"):
        find_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="there is no such checkpoint"):
        find_checkpoint(tmp_path / "absent")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(ValueError, match="not a TensorFlow checkpoint"):
        find_checkpoint(tmp_path / "file.txt")
    (tmp_path / "model.data-00000-of-00001").write_text("x")
    with pytest.raises(ValueError, match=r"model\.index: missing, though data files"):
        find_checkpoint(tmp_path / "model")
