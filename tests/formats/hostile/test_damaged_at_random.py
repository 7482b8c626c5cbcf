"""Real files, damaged at random: right values or ValueError."""

import contextlib

import flax.serialization
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigbird_port.families.bigbird.config import BigBirdConfig, read_config
from bigbird_port.formats.flax.msgpack_reader import FlaxMsgpack
from bigbird_port.formats.safetensors.reader import SafetensorsFile, SafetensorsShards
from bigbird_port.formats.store import read
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.object_graph import parse_object_graph, readable_names
from bigbird_port.formats.torch.reader import TorchBin
from tests.conftest import DEMO
from tests.formats.hostile.bundles import entry, field, index
from tests.formats.hostile.hostile import MIB, SHARDS, attribute, child, memory, write_bundle
from tests.formats.hostile.stores import arrays, nested, write_shards

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
    database=None,
)


@st.composite
def damage(draw, data):
    """``data`` after some flips of bits, cuts, splices of itself, and edits of lengths."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(("flip", "cut", "splice", "length", "insert", "delete")))
        if not data:
            break
        if how == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "splice":
            start = draw(st.integers(0, len(data) - 1))
            data[at : at + 20] = data[start : start + 20]
        elif how == "length":
            size = draw(st.sampled_from((1, 2, 4, 8)))
            value = draw(
                st.sampled_from((0, 1, 127, 128, 255, 1 << 15, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1))
            )
            order = draw(st.sampled_from(("big", "little")))
            data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, order)
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            del data[at : at + draw(st.integers(1, 8))]
    return bytes(data)


def values_of(store):
    return {name: read(store, name).tobytes() for name, stored in store.tensors.items() if stored.dtype is not None}


def try_to(open_and_read):
    """What it returns, or None where it raises ValueError; anything else fails, as does much memory."""
    with memory(12 * MIB), contextlib.suppress(ValueError):
        return open_and_read()
    return None


def small():
    """A few arrays, so that most of the bytes are those of the header."""
    return {name: values for name, values in arrays().items() if values.size < 4}


@pytest.fixture(scope="module")
def demo():
    """The index and the shard of the demo, cut down to its first variables."""
    store = TensorBundle(DEMO / "model.ckpt-30")
    return values_of(store), (DEMO / "model.ckpt-30.index").read_bytes()


@EXAMPLES
@given(data=st.data())
def test_damaged_indices(tmp_path, demo, data):
    """An index is under checksums: the values are right, or there are none."""
    values, whole = demo
    shard = tmp_path / "model.data-00000-of-00001"
    if not shard.exists():
        shard.symlink_to(DEMO / "model.ckpt-30.data-00000-of-00001")
        shard.unlink()
        shard.write_bytes((DEMO / "model.ckpt-30.data-00000-of-00001").read_bytes())
    (tmp_path / "model.index").write_bytes(data.draw(damage(whole)))
    found = try_to(lambda: TensorBundle(tmp_path / "model").tensors)
    assert found is None or {name: stored.nbytes for name, stored in found.items()} == {
        name: len(raw) for name, raw in values.items()
    }


@EXAMPLES
@given(data=st.data())
def test_damaged_shards(tmp_path, data):
    """A shard is under checksums: the values are right, or there are none."""
    import google_crc32c

    from bigbird_port.formats.runs import masked_crc32c

    raw = np.arange(16, dtype=np.float32).tobytes()
    crc = [masked_crc32c(google_crc32c.value(part)) for part in (raw[:32], raw[32:])]
    pairs = [(name, entry(sizes=(8,), offset=32 * i, crc32c=crc[i])) for i, name in enumerate((b"a", b"b"))]
    write_bundle(tmp_path, index(pairs))
    (tmp_path / "model.data-00000-of-00001").write_bytes(data.draw(damage(raw)))
    found = try_to(lambda: values_of(TensorBundle(tmp_path / "model")))
    assert found in (None, {"a": raw[:32], "b": raw[32:]})


@EXAMPLES
@given(data=st.data())
def test_damaged_safetensors(tmp_path, data):
    """No checksum tells damage of values: but what is read is what the safetensors library reads."""
    damaged = data.draw(damage(safetensors.numpy.save(small(), metadata={"format": "pt"})))
    (tmp_path / "model.safetensors").write_bytes(damaged)
    found = try_to(lambda: values_of(SafetensorsFile(tmp_path / "model.safetensors")))
    if found is not None:
        witness = {name: bytes(value["data"]) for name, value in safetensors.deserialize(damaged)}
        assert found.items() <= witness.items()


@EXAMPLES
@given(data=st.data())
def test_damaged_weight_maps(tmp_path, data):
    path = write_shards(tmp_path, "model.safetensors.index.json", SHARDS, safetensors.numpy.save_file)
    path.write_bytes(data.draw(damage(path.read_bytes())))
    found = try_to(lambda: values_of(SafetensorsShards(path)))
    everything = {name: values.tobytes() for held in SHARDS.values() for name, values in held.items()}
    assert found is None or found.items() <= everything.items()


@EXAMPLES
@given(data=st.data())
def test_damaged_flax_files(tmp_path, data):
    """No checksum tells damage of values: but what is read is what Flax reads."""
    tree = nested(small()) | {"chunked": {"__msgpack_chunked_array__": True, "shape": {"0": 4}, "chunks": {}}}
    tree["chunked"]["chunks"] = {str(i): np.arange(2, dtype=np.float32) for i in range(2)}
    damaged = data.draw(damage(flax.serialization.to_bytes(tree)))
    (tmp_path / "model.msgpack").write_bytes(damaged)
    found = try_to(lambda: values_of(FlaxMsgpack(tmp_path / "model.msgpack")))
    if found is not None:
        witness = flax.serialization.msgpack_restore(damaged)
        for name, raw in found.items():
            assert np.asarray(leaf(witness, name)).tobytes() == raw


def leaf(tree, name):
    """The value under a slash-separated name; keys may hold slashes themselves."""
    for key, value in tree.items():
        if key == name:
            return value
        if (
            name.startswith(f"{key}/")
            and isinstance(value, dict)
            and (found := leaf(value, name[len(key) + 1 :])) is not None
        ):
            return found
    return None


@EXAMPLES
@given(data=st.data())
def test_damaged_configurations(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data.draw(damage((DEMO / "pretrain.config").read_bytes())))
    found = try_to(lambda: read_config(tmp_path / "config.json"))
    assert found is None or isinstance(found, BigBirdConfig)


@EXAMPLES
@given(data=st.data())
def test_damaged_object_graphs(data):
    nodes = [
        child(1, b"layers") + child(2, b"table"),
        child(0, b"up") + attribute(b"a/b:0", b"k1"),
        attribute(b"", b"k2"),
    ]
    whole = b"".join(field(1, node) for node in nodes)
    keys = {"k1", "k2"}
    found = try_to(lambda: readable_names(parse_object_graph(data.draw(damage(whole))), keys, dict.fromkeys(keys)))
    assert found is None or (found.keys() <= keys and len(set(found.values())) == len(found))


@settings(EXAMPLES, max_examples=30)
@given(data=st.data())
def test_damaged_torch_files(tmp_path, data):
    import torch

    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(4.0), "b": torch.arange(3)}, path)
    path.write_bytes(data.draw(damage(path.read_bytes())))
    found = try_to(lambda: {name: stored.nbytes for name, stored in TorchBin(path).tensors.items()})
    assert found is None or all(size <= path.stat().st_size for size in found.values())
