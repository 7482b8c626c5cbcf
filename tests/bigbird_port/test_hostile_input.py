"""Hostile files of every kind: what comes of them is ValueError or the right values, and little memory is used."""

import contextlib
import json
import os
import pickle
import tracemalloc
import zipfile

import flax.serialization
import msgpack
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigbird_port.checkpoint import limits
from bigbird_port.checkpoint.flax_msgpack import FlaxMsgpack
from bigbird_port.checkpoint.object_graph import parse_object_graph, readable_names
from bigbird_port.checkpoint.open_store import open_store
from bigbird_port.checkpoint.orbax_folder import OrbaxFolder
from bigbird_port.checkpoint.safetensors_file import SafetensorsFile, SafetensorsShards
from bigbird_port.checkpoint.saved_model import SavedModel
from bigbird_port.checkpoint.slices import slice_key
from bigbird_port.checkpoint.store import read
from bigbird_port.checkpoint.tensor_bundle import TensorBundle
from bigbird_port.checkpoint.torch_bin import TorchBin, TorchBinShards
from bigbird_port.config import BigBirdConfig, read_config
from bigbird_port.json_object import read_json_object
from tests.bigbird_port.bundles import block, cut, entry, field, finished, header, index, table, varint
from tests.bigbird_port.stores import arrays, nested, write_shards
from tests.conftest import DEMO

MIB = 1 << 20
KEY = slice_key


@contextlib.contextmanager
def memory(most):
    """Fail if Python and NumPy hold more than ``most`` bytes more at any moment."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most, f"{peak / MIB:.1f} MiB"


def refused(opener, path, message):
    with memory(8 * MIB), pytest.raises(ValueError, match=message) as caught:
        opener(path)
    assert path.name.split(".")[0] in str(caught.value)


# TensorFlow checkpoints. The shard beside each index has 64 bytes.

ROWS = ((0, 1), (0, -1))
BUNDLES = {
    "no footer": (b"", "fewer than its 48-byte footer"),
    "magic": (table([block([(b"", header())])], magic=1), "not the magic number"),
    "compressed": (index([], kind=1), r"compressed \(type 1\)"),
    "checksum": (index([], crc32c=1), "does not match its crc32c"),
    "restart points": (index([], restarts=1 << 31), "more restart points than bytes"),
    "block order": (table([block([(b"", header())]), block([(b"a", entry())])], order=[1, 0]), "out of order"),
    "block twice": (table([block([])], order=[0, 0]), "the block at byte 0 is out of order"),
    "no header": (table([block([(b"a", entry())])]), "it has no header"),
    "big-endian": (index([], header(endianness=1)), "big-endian"),
    "no shards": (index([], header(shards=0)), "0 shards"),
    "many shards": (index([], header(shards=1 << 40)), f"{1 << 40} shards"),
    "shard missing": (index([], header(shards=2)), "data-00000-of-00002: the index is there, but this data file"),
    "shard number": (index([(b"a", entry(shard=1))]), "a is in shard 1 of 1"),
    "key twice": (index([(b"a", entry()), (b"a", entry())]), "the key b'a' is there twice"),
    "key order": (index([(b"b", entry()), (b"a", entry(offset=8))]), "the key b'a' is out of order"),
    "not UTF-8": (index([(b"\xff", entry())]), "utf-8"),
    "unprintable": (index([(b"a\x1b[2J", entry())]), "printable characters"),
    "long name": (index([(b"a" * 513, entry())]), "1 to 512 printable characters"),
    "type 0": (index([(b"a", entry(dtype=0))]), "type number 0"),
    "reference": (index([(b"a", entry(dtype=101))]), "type number 101"),
    "negative shape": (index([(b"a", entry(sizes=(-1,), size=8))]), "not a number in range"),
    "huge shape": (index([(b"a", entry(sizes=(1 << 62, 1 << 62), size=8))]), r"a has 8 bytes, its shape .* needs \d+"),
    "many axes": (index([(b"a", entry(sizes=(1,) * 33, size=4))]), "more than 32 axes"),
    "size": (index([(b"a", entry(size=12))]), r"a has 12 bytes, its shape \[2\] needs 8"),
    "overlap": (index([(b"a", entry()), (b"b", entry(offset=4))]), "a and b overlap at byte 4"),
    "beyond": (index([(b"a", entry(offset=60))]), "truncated: it has 64 bytes, the index needs 68"),
    "beyond, huge": (index([(b"a", entry(sizes=(1 << 40,)))]), "truncated: it has 64 bytes"),
    "negative offset": (index([(b"a", entry(offset=-8))]), "not a number in range"),
    "field end": (index([(b"a", b"\x12\x7f")]), "runs past its end"),
    "field kind": (index([(b"a", b"\x0b")]), "unknown kind 3"),
    "endless number": (index([(b"a", b"\x80" * 11)]), "runs past the end"),
    "number for message": (index([(b"a", field(1, 1) + field(2, 7))]), "not a message"),
    "slice missing": (index([(b"a", entry(sizes=(2, 2), slices=[cut((0, 1), ())]))]), "is not there"),
    "slice of nothing": (index([(KEY(b"a", ROWS), entry(sizes=(1, 2)))]), "belongs to no variable"),
    "slice axes": (index([(b"a", entry(sizes=(2, 2), slices=[cut((0, 1))]))]), "another number of axes"),
    "slice beyond": (
        index([(KEY(b"a", ((1, 2),)), entry()), (b"a", entry(slices=[cut((1, 2))]))]),
        "leaves its variable",
    ),
    "slice shape": (
        index([(KEY(b"a", ((0, 1),)), entry(sizes=(2,))), (b"a", entry(slices=[cut((0, 1))]))]),
        r"a slice of it is \[2\], expected \[1\]",
    ),
    "slice gap": (
        index([(KEY(b"a", ((0, 1),)), entry(sizes=(1,))), (b"a", entry(slices=[cut((0, 1))]))]),
        "do not make up the whole",
    ),
    "slice overlap": (
        index(
            [
                *((KEY(b"a", ((s, 2),)), entry(offset=8 * s)) for s in (0, 1)),
                (b"a", entry(sizes=(4,), slices=[cut((0, 2)), cut((1, 2))])),
            ]
        ),
        "its slices overlap",
    ),
    "grid overlap": (
        index(
            [
                *((KEY(b"a", ((0, 2), (s, 2))), entry(sizes=(2, 2), offset=16 * s)) for s in (0, 1)),
                (b"a", entry(sizes=(2, 4), slices=[cut((0, 2), (0, 2)), cut((0, 2), (1, 2))])),
            ]
        ),
        "its slices overlap",
    ),
    "slice of strings": (
        index([(KEY(b"a", ((0, 2),)), entry(dtype=7)), (b"a", entry(dtype=7, slices=[cut((0, 2))]))]),
        "partitioned and a string",
    ),
    "slice twice": (
        index([(KEY(b"a", ((0, 1),)), entry(sizes=(1,))), (b"a", entry(slices=[cut((0, 1)), cut((0, 1))]))]),
        "is not there, or there twice",
    ),
}


def write_bundle(folder, data):
    (folder / "model.index").write_bytes(data)
    (folder / "model.data-00000-of-00001").write_bytes(bytes(64))
    return folder / "model"


@pytest.mark.parametrize("case", BUNDLES)
def test_bundles(tmp_path, case):
    data, message = BUNDLES[case]
    refused(TensorBundle, write_bundle(tmp_path, data), message)


def test_the_bundles_by_hand_can_be_right(tmp_path):
    """The control of the table above: the same builders, nothing wrong."""
    pairs = [
        (KEY(b"a", ((0, 2), (0, -1))), entry(sizes=(2, 1), crc32c=0x8A9136AA)),
        (KEY(b"a", ((2, 1), (0, -1))), entry(sizes=(1, 1), offset=8, crc32c=0x0)),
        (b"a", entry(sizes=(3, 1), slices=[cut((2, 1), ()), cut((0, 2), ())])),
        (b"b", entry(offset=16)),
    ]
    store = TensorBundle(write_bundle(tmp_path, index(pairs, share=True)))
    assert {name: stored.shape for name, stored in store.tensors.items()} == {"a": (3, 1), "b": (2,)}
    with pytest.raises(ValueError, match="b does not match its crc32c"):
        read(store, "b")


def test_too_many_entries(tmp_path, monkeypatch):
    monkeypatch.setattr("bigbird_port.checkpoint.tensor_bundle.MAX_TENSORS", 2)
    pairs = [(name, entry(offset=8 * i)) for i, name in enumerate((b"a", b"b", b"c"))]
    refused(TensorBundle, write_bundle(tmp_path, index(pairs)), "more than 2 entries")


def test_an_index_of_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("bigbird_port.checkpoint.tensor_bundle.MAX_INDEX_BYTES", 100)
    refused(TensorBundle, write_bundle(tmp_path, bytes(101)), "more than 100 bytes")


# Object graphs.

GRAPHS = {
    "reference": (field(1, field(1, field(1, 5))), "it refers to node 5 of 1"),
    "not UTF-8": (field(1, field(2, field(3, b"\xff"))), "utf-8"),
    "number": (field(1, 3), "not a message"),
    "truncated": (field(1, b"abc")[:-1], "runs past its end"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_object_graphs(case):
    data, message = GRAPHS[case]
    with pytest.raises(ValueError, match=message):
        parse_object_graph(data)


def attribute(full_name, key):
    return field(2, field(1, b"VARIABLE_VALUE") + field(2, full_name) + field(3, key))


def child(node, name):
    return field(1, field(1, node) + field(2, name))


def test_a_graph_with_circles_ends():
    nodes = [child(1, b"a") + child(0, b"me"), child(0, b"up") + attribute(b"", b"key")]
    graph = parse_object_graph(b"".join(field(1, node) for node in nodes))
    assert readable_names(graph, {"key"}, {"key": 0}) == {"key": "a"}


def test_a_path_too_long_gives_way_to_the_key():
    chain = [child(i + 1, b"x" * 100) for i in range(10)]
    graph = parse_object_graph(b"".join(field(1, node) for node in [*chain, attribute(b"", b"key")]))
    assert readable_names(graph, {"key"}, {"key": 0}) == {"key": "key"}


def test_too_many_nodes(monkeypatch):
    monkeypatch.setattr("bigbird_port.checkpoint.object_graph.MAX_NODES", 2)
    with pytest.raises(ValueError, match="more than 2 nodes"):
        parse_object_graph(field(1, b"") * 3)


def with_graph(folder, raw, dtype=7, sizes=(), crc32c=0):
    """A checkpoint that holds nothing but an object graph of these bytes."""
    pairs = [(b"_CHECKPOINTABLE_OBJECT_GRAPH", entry(sizes=sizes, size=len(raw), dtype=dtype, crc32c=crc32c))]
    prefix = write_bundle(folder, index(pairs))
    (folder / "model.data-00000-of-00001").write_bytes(raw)
    return prefix


@pytest.mark.parametrize("raw", [b"", b"\x05abcdefghi", b"\xff" * 10, b"\x80" * 12, varint(1 << 70) + bytes(9)])
def test_damaged_strings(tmp_path, raw):
    with pytest.raises(ValueError, match="does not match its length or crc32c"):
        SavedModel(TensorBundle(with_graph(tmp_path, raw)))


def test_a_graph_that_is_no_string(tmp_path):
    with pytest.raises(ValueError, match="expected one string"):
        SavedModel(TensorBundle(with_graph(tmp_path, bytes(4), dtype=1)))


# safetensors.


def tensors_file(header_, data=b"", length=None):
    text = header_ if isinstance(header_, bytes) else json.dumps(header_).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def one(dtype="F32", shape=(2,), begin=0, end=8, **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


SAFETENSORS = {
    "empty": (b"", "does not fit in its 0 bytes"),
    "header beyond the file": (tensors_file({}, length=3), "header of 3 bytes does not fit"),
    "huge header": (tensors_file({}, length=1 << 63), "does not fit"),
    "not an object": (tensors_file(b"[]"), "does not begin with {"),
    "space first": (tensors_file(b" {}"), "does not begin with {"),
    "not JSON": (tensors_file(b"{"), "damaged"),
    "not UTF-8": (tensors_file(b'{"\xff":1}'), "utf-8"),
    "deep": (tensors_file(b'{"a":' * 100000), "nested too deeply"),
    "long number": (tensors_file(b'{"a":' + b"1" * 5000 + b"}"), "damaged"),
    "key twice": (tensors_file(b'{"a":1,"a":2}'), "the key 'a' is there twice"),
    "inner key twice": (tensors_file(b'{"a":{"dtype":"F32","dtype":"F64"}}'), "the key 'dtype' is there twice"),
    "metadata": (tensors_file({"__metadata__": {"a": 1}}), "not an object of strings"),
    "no object": (tensors_file({"a": 1}), "expected dtype, shape and data_offsets"),
    "more fields": (tensors_file({"a": one(more=1)}, bytes(8)), "expected dtype, shape and data_offsets"),
    "dtype": (tensors_file({"a": one("F33")}, bytes(8)), "unknown dtype 'F33'"),
    "dtype is no string": (tensors_file({"a": one([])}, bytes(8)), "unknown dtype"),
    "negative shape": (tensors_file({"a": one(shape=[-2])}, bytes(8)), "expected an integer of at least 0"),
    "fraction": (tensors_file({"a": one(shape=[2.0])}, bytes(8)), "expected an integer of at least 0"),
    "true": (tensors_file({"a": one(shape=[2, True])}, bytes(8)), "expected an integer of at least 0"),
    "huge size": (tensors_file({"a": one(shape=[1 << 64])}, bytes(8)), "expected an integer of at least 0"),
    "huge shape": (tensors_file({"a": one(shape=[1 << 62] * 4)}, bytes(8)), "needs"),
    "many axes": (tensors_file({"a": one(shape=[1] * 33)}, bytes(8)), "at most 32 sizes"),
    "end before begin": (tensors_file({"a": one(begin=8, end=0)}, bytes(8)), "expected the beginning and the end"),
    "three offsets": (tensors_file({"a": one() | {"data_offsets": [0, 8, 8]}}, bytes(8)), "expected the beginning"),
    "size": (tensors_file({"a": one(end=9)}, bytes(9)), r"it has 9 bytes, F32 \[2\] needs 8"),
    "overlap": (tensors_file({"a": one(), "b": one(begin=4, end=12)}, bytes(12)), "b overlaps the tensor before it"),
    "gap": (tensors_file({"a": one(), "b": one(begin=9, end=17)}, bytes(17)), "b follows a gap"),
    "gap at the start": (tensors_file({"a": one(begin=1, end=9)}, bytes(9)), "a follows a gap"),
    "beyond": (tensors_file({"a": one()}, bytes(7)), "truncated"),
    "trailing": (tensors_file({"a": one()}, bytes(9)), "trailing bytes"),
    "unprintable": (tensors_file({"a\x1b": one()}, bytes(8)), "printable characters"),
    "lone surrogate": (tensors_file(b'{"\\ud800":1}'), "printable characters"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_files(tmp_path, case):
    data, message = SAFETENSORS[case]
    (tmp_path / "model.safetensors").write_bytes(data)
    refused(SafetensorsFile, tmp_path / "model.safetensors", message)


def test_a_header_of_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("bigbird_port.checkpoint.safetensors_file.MAX_HEADER_BYTES", 10)
    (tmp_path / "model.safetensors").write_bytes(tensors_file({"a": one()}, bytes(8)))
    refused(SafetensorsFile, tmp_path / "model.safetensors", "expected at most 10")


def test_bools_of_other_bytes(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(tensors_file({"a": one("BOOL", end=2)}, b"\1\2"))
    with pytest.raises(ValueError, match="bytes other than 0 and 1"):
        read(SafetensorsFile(tmp_path / "model.safetensors"), "a")


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(tensors_file({"a": one()}, bytes(8)))
    store = SafetensorsFile(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated: a runs past its end"):
        read(store, "a")


SHARDS = {"one.safetensors": {"a": np.ones(2, np.float32)}, "two.safetensors": {"b": np.ones(2, np.float32)}}
WEIGHT_MAPS = {
    "path": ({"a": "../one.safetensors"}, "not the name of a file beside it"),
    "absolute": ({"a": "/etc/passwd"}, "not the name of a file beside it"),
    "parent": ({"a": ".."}, "not the name of a file beside it"),
    "backslash": ({"a": "..\\one.safetensors"}, "not the name of a file beside it"),
    "null": ({"a": "one\0.safetensors"}, "not the name of a file beside it"),
    "surrogate": ({"a": "\ud800"}, "not the name of a file beside it"),
    "number": ({"a": 1}, "not the name of a file beside it"),
    "long": ({"a": "x" * 300}, "not the name of a file beside it"),
    "missing": ({"a": "three.safetensors"}, "cannot be read: No such file"),
    "lacking": ({"c": "one.safetensors"}, r"'c' should be in one\.safetensors, which lacks it"),
    "elsewhere": ({"a": "two.safetensors", "b": "one.safetensors"}, r"'a' should be in two\.safetensors, .* in one"),
    "none": ({}, "it has no weight_map"),
    "list": ([], "it has no weight_map"),
}


@pytest.mark.parametrize("case", WEIGHT_MAPS)
def test_weight_maps(tmp_path, case):
    names, message = WEIGHT_MAPS[case]
    path = write_shards(tmp_path, "model.safetensors.index.json", SHARDS, safetensors.numpy.save_file)
    path.write_text(json.dumps({"weight_map": names}))
    for opener in (SafetensorsShards, open_store):
        with pytest.raises(ValueError, match=message):
            opener(path)


def test_a_tensor_in_two_shards(tmp_path):
    both = {file: {"c": np.ones(2, np.float32), **held} for file, held in SHARDS.items()}
    path = write_shards(tmp_path, "model.safetensors.index.json", both, safetensors.numpy.save_file)
    refused(SafetensorsShards, path, r"c is both in one\.safetensors and in two\.safetensors")


# Flax parameter files.


def array(shape=(2,), dtype="float32", data=bytes(8), code=1):
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))


def chunked(shape=(4,), chunks=2, **more):
    pieces = {str(i): array() for i in range(chunks)}
    return {"__msgpack_chunked_array__": True, "shape": dict(zip("0123", shape, strict=False)), "chunks": pieces} | more


def deep(levels):
    tree = array()
    for _ in range(levels):
        tree = {"a": tree}
    return tree


TREES = {
    "empty": (b"", "truncated"),
    "list": (msgpack.packb([]), "expected a map of parameters"),
    "number": (msgpack.packb({"a": 1}), "a is of kind integer: expected an array"),
    "nil": (msgpack.packb({"a": None}), "expected an array"),
    "bytes": (msgpack.packb({"a": b"x"}), "expected an array"),
    "key is a number": (msgpack.packb({1: array()}), "a key: expected a value of kind string"),
    "empty key": (msgpack.packb({"": array()}), "printable characters"),
    "unprintable key": (msgpack.packb({"\x1b": array()}), "printable characters"),
    "long key": (msgpack.packb({"a" * 600: array()}), "a string has 600 bytes"),
    "key twice": (b"\x82" + 2 * (b"\xa1a" + msgpack.packb(array())), "the key 'a' is there twice"),
    "name twice": (msgpack.packb({"a": {"b": array()}, "a/b": array()}), "a/b is there twice"),
    "key not UTF-8": (b"\x81\xa1\xff" + msgpack.packb(array()), "utf-8"),
    "extension": (msgpack.packb({"a": array(code=2)}), "extension type 2"),
    "dtype": (msgpack.packb({"a": array(dtype="object")}), "unknown dtype 'object'"),
    "negative": (msgpack.packb({"a": array(shape=(-2,))}), "expected a value of kind integer"),
    "fraction": (msgpack.packb({"a": array(shape=(2.0,))}), "expected a value of kind integer"),
    "huge": (msgpack.packb({"a": array(shape=(1 << 40, 1 << 40))}), "are not those of float32"),
    "many axes": (msgpack.packb({"a": array(shape=(1,) * 33)}), "33 sizes"),
    "size": (msgpack.packb({"a": array(data=bytes(7))}), "its 7 bytes are not those of"),
    "inside": (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((2,), "float32", bytes(8))) + b"x")}), "are not"),
    "truncated": (msgpack.packb({"a": array()})[:-1], "truncated"),
    "trailing": (msgpack.packb({"a": array()}) + b"x", "1 trailing bytes"),
    "endless map": (b"\xdf\xff\xff\xff\xff", "truncated"),
    "endless bytes": (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93\x91\x02\xa7float32\xc6\xff\xff\xff\xf0", "are not those"),
    "deep": (msgpack.packb(deep(100)), "nested more than 64 deep"),
    "very deep": (b"\x81\xa1a" * 100000, "nested more than 64 deep"),
    "pieces": (msgpack.packb({"a": chunked(shape=(5,))}), r"hold 4 values, its shape \[5\] needs another"),
    "no pieces": (msgpack.packb({"a": chunked(shape=(0,), chunks=0)}), "its pieces are of 0 types"),
    "more beside pieces": (msgpack.packb({"a": chunked(more=1)}), "expected shape and chunks alone"),
    "other beside pieces": (
        msgpack.packb({"a": {"__msgpack_chunked_array__": True, "x": 1, "y": 1}}),
        "'x' beside __msgpack_chunked_array__",
    ),
    "pieces unnumbered": (
        msgpack.packb({"a": chunked() | {"chunks": {"1": array()}}}),
        "not numbered in order",
    ),
    "pieces of two types": (
        msgpack.packb({"a": chunked() | {"chunks": {"0": array(), "1": array(dtype="int32")}}}),
        "its pieces are of 2 types",
    ),
}


@pytest.mark.parametrize("case", TREES)
def test_flax_files(tmp_path, case):
    data, message = TREES[case]
    (tmp_path / "model.msgpack").write_bytes(data)
    refused(FlaxMsgpack, tmp_path / "model.msgpack", message)


def test_too_many_entries_of_flax(tmp_path, monkeypatch):
    (tmp_path / "model.msgpack").write_bytes(msgpack.packb({name: array() for name in "abc"}))
    monkeypatch.setattr("bigbird_port.checkpoint.flax_msgpack.MAX_TENSORS", 2)
    refused(FlaxMsgpack, tmp_path / "model.msgpack", "more than 2 arrays")
    monkeypatch.setattr("bigbird_port.checkpoint.flax_msgpack.MAX_NODES", 2)
    refused(FlaxMsgpack, tmp_path / "model.msgpack", "more than 2 entries")


# torch files.


class Program:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_program_in_a_pickle_is_not_run(tmp_path, is_zip):
    import torch

    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": Program(str(tmp_path / "ran"))}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match="it holds more than weights, or is damaged: it was not executed"):
        TorchBin(path)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(pickle.dumps(Program(str(tmp_path / "ran"))))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        TorchBin(path)
    assert not (tmp_path / "ran").exists()


class Harmless:
    """What torch takes for harmless: a gibibyte from some bytes."""

    def __reduce__(self):
        return bytearray, (1 << 30,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_memory_that_a_pickle_asks_for_is_not_given(tmp_path, is_zip):
    import torch

    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": Harmless()}, path, _use_new_zipfile_serialization=is_zip)
    refused(TorchBin, path, r"it holds more than weights, or is damaged: it was not executed.*bytearray")


def test_the_zip_of_a_torch_file_is_unambiguous(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/data.pkl", "b/data.pkl"):
            archive.writestr(name, pickle.dumps({}, protocol=2))
    refused(TorchBin, path, "expected one data.pkl")


def test_a_pickle_before_a_zip_is_looked_at(tmp_path):
    import torch

    plain, path = tmp_path / "plain.bin", tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, plain)
    torch.save({"a": Harmless()}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + plain.read_bytes())
    refused(TorchBin, path, r"it holds more than weights.*bytearray")


def torch_values():
    import torch

    return {
        "list": ([torch.ones(2)], "it holds a list: expected a dict of tensors"),
        "nested": ({"state_dict": {"a": torch.ones(2)}}, "state_dict is a dict: expected a tensor"),
        "number": ({"a": torch.ones(2), "epoch": 3}, "epoch is a int: expected a tensor"),
        "key": ({1: torch.ones(2)}, "a key in it is a int"),
        "unprintable": ({"\x1b": torch.ones(2)}, "printable characters"),
        "sparse": ({"a": torch.eye(3).to_sparse()}, "_rebuild_sparse_tensor"),
        "meta": ({"a": torch.ones(3, device="meta")}, "_rebuild_meta_tensor"),
        "endless view": ({"a": torch.ones(1).expand(1 << 40)}, "a is larger than the file"),
    }


@pytest.mark.parametrize("case", torch_values())
def test_torch_files(tmp_path, case):
    import torch

    value, message = torch_values()[case]
    torch.save(value, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=message):
        TorchBin(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"\x80\x02", b"words" * 100, b"PK\5\6" + bytes(18)])
def test_no_torch_file(tmp_path, data):
    (tmp_path / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        TorchBin(tmp_path / "pytorch_model.bin")


def test_a_zip_that_unpacks_to_more(tmp_path):
    import torch

    torch.save({"a": torch.zeros(1 << 18)}, tmp_path / "plain.bin")
    with (
        zipfile.ZipFile(tmp_path / "plain.bin") as plain,
        zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refused(TorchBin, tmp_path / "pytorch_model.bin", "compressed members")


def test_torch_shards(tmp_path):
    import torch

    shards = {f"{i}.bin": {"a": torch.ones(2), f"t{i}": torch.ones(2)} for i in range(2)}
    path = write_shards(tmp_path, "pytorch_model.bin.index.json", shards, torch.save)
    with pytest.raises(ValueError, match=r"a is both in 0\.bin and in 1\.bin"):
        TorchBinShards(path)


# Orbax folders.


@pytest.fixture
def orbax(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "tree", {"a": {"b": np.arange(64, dtype=np.float32)}})
    return tmp_path / "tree"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tree_metadata": 1}', "{" * 10])
def test_damaged_metadata_of_orbax(orbax, text):
    (orbax / "_METADATA").write_text(text)
    with pytest.raises(ValueError, match="tree"):
        OrbaxFolder(orbax)


def test_damaged_values_of_orbax(orbax):
    store = OrbaxFolder(orbax)
    for file in store.files:
        if file.parent.name == "d":
            file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match="tree"):
        read(OrbaxFolder(orbax), "a/b")


# Links.


def test_a_large_checkpoint_file_is_refused(tmp_path):
    (tmp_path / "checkpoint").write_bytes(bytes(MIB + 1))
    refused(open_store, tmp_path / "checkpoint", "not a weight file")
    with memory(MIB), pytest.raises(ValueError, match="checkpoint: it has more than 1048576 bytes"):
        open_store(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "flax_model.msgpack", "model.index", "config.json"])
def test_links_out_of_the_folder_are_refused(tmp_path, file):
    folder = tmp_path / "folder"
    folder.mkdir()
    safetensors.numpy.save_file(arrays(), folder / "model.safetensors")
    if file != "config.json":
        (folder / "model.safetensors").unlink()
    (tmp_path / "secret").write_text("{}")
    (folder / file).symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"a link that leads out of its folder, to .*secret"):
        open_store(folder)


def test_shards_that_lead_out_of_the_folder_are_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_shards(folder, "model.safetensors.index.json", SHARDS, safetensors.numpy.save_file)
    (folder / "one.safetensors").rename(tmp_path / "one.safetensors")
    (folder / "one.safetensors").symlink_to(tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match="a link that leads out of its folder"):
        open_store(folder)


def test_links_within_the_folder_are_followed(tmp_path):
    safetensors.numpy.save_file(arrays(), tmp_path / "weights")
    (tmp_path / "model.safetensors").symlink_to("weights")
    assert len(open_store(tmp_path).store.tensors) == len(arrays())


def hub_cache(folder):
    """A model as Hugging Face's cache keeps it."""
    snapshot = folder / "models--a--b/snapshots/0123"
    blobs = folder / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    safetensors.numpy.save_file(arrays(), blobs / "digest")
    (blobs / "digest2").write_text("{}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/digest")
    (snapshot / "config.json").symlink_to("../../blobs/digest2")
    return snapshot


def test_links_of_the_hub_cache_are_followed(tmp_path):
    opened = open_store(hub_cache(tmp_path))
    assert len(opened.store.tensors) == len(arrays())
    assert opened.config_file is not None


def test_links_out_of_the_hub_cache_are_refused(tmp_path):
    snapshot = hub_cache(tmp_path)
    safetensors.numpy.save_file(arrays(), tmp_path / "secret")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="a link that leads out of its folder"):
        open_store(snapshot)
    # Nor by making the cache's own folder a link.
    (tmp_path / "models--a--b/blobs").rename(tmp_path / "elsewhere")
    (tmp_path / "models--a--b/blobs").symlink_to(tmp_path / "elsewhere")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../blobs/digest")
    with pytest.raises(ValueError, match="a link that leads out of its folder"):
        open_store(snapshot)


def test_links_in_circles_and_what_is_no_file(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read"):
        open_store(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not a regular file"):
        SafetensorsFile(tmp_path / "model.safetensors")


def test_a_neutral_file_says_so(tmp_path):
    safetensors.numpy.save_file(arrays(), tmp_path / "model.neutral.safetensors")
    with pytest.raises(ValueError, match="the format in its metadata is None: expected 'bigbird-port neutral'"):
        open_store(tmp_path)


# JSON.

JSON = {
    "empty": (b"", "cannot be read"),
    "list": (b"[]", "expected a JSON object, found list"),
    "key twice": (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
    "inner key twice": (b'{"a": {"b": 1, "b": 1}}', "the key 'b' is there twice"),
    "deep": (b'{"a":' * 100000, "nested too deeply"),
    "not UTF-8": (b'{"a": "\xff"}', "utf-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "utf-8"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
    "many values": (b'{"a":[' + b"1," * 200_001 + b"1]}", "more than 200000 values"),
}


@pytest.mark.parametrize("case", JSON)
def test_json(tmp_path, case):
    data, message = JSON[case]
    (tmp_path / "config.json").write_bytes(data)
    refused(read_json_object, tmp_path / "config.json", message)


def test_json_of_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("bigbird_port.json_object.MAX_JSON_BYTES", 10)
    (tmp_path / "config.json").write_text('{"a": "0123456789"}')
    refused(read_json_object, tmp_path / "config.json", "more than 10 bytes")


# Files of 1 MiB that would grow without end.


def growing_keys():
    """Each key shares all but its last letters with the one before it."""
    first = varint(0) + varint(506) + varint(0) + b"k" * 500 + b"%06x" % 0
    rest = b"".join(varint(500) + varint(6) + varint(0) + b"%06x" % i for i in range(1, 100_000))
    return table([block([(b"", header())]), finished(first + rest)])


def far_leaves():
    """A valid tree: as many arrays as there may be, under as long names."""
    head = b"\x81\xd9\xfa" + b"k" * 250 + b"\x81\xd9\xfa" + b"k" * 250 + b"\xde" + (19_999).to_bytes(2, "big")
    packed = msgpack.packb(array(shape=(0,), dtype="int8", data=b""))
    return head + b"".join(b"\xa5%05x" % i + packed for i in range(19_999))


def open_graph(path):
    return parse_object_graph(path.read_bytes())


# What opens it, its name, its bytes, and the memory that it may take in MiB.
BOMBS = {
    "keys that share": (TensorBundle, "model", growing_keys, 16),
    "many entries": (
        TensorBundle,
        "model",
        lambda: index([(b"%06x" % i, field(1, 7)) for i in range(80_000)]),
        8,
    ),
    "lists in lists": (read_json_object, "config.json", lambda: b'{"a":[' + b"[]," * 340_000 + b"[]]}", 8),
    "objects in a header": (
        SafetensorsFile,
        "model.safetensors",
        lambda: tensors_file(b"{" + b",".join(b'"%05x":{}' % i for i in range(90_000)) + b"}"),
        32,
    ),
    "maps in maps": (
        FlaxMsgpack,
        "model.msgpack",
        lambda: b"\xdf\xff\xff\xff\xff" + b"".join(b"\xa6%06x\x80" % i for i in range(100_000)),
        8,
    ),
    "long names": (FlaxMsgpack, "model.msgpack", far_leaves, 24),
    "many variables": (open_graph, "graph", lambda: field(1, field(2, b"") * 500_000), 8),
    "many nodes": (open_graph, "graph", lambda: field(1, b"") * 500_000, 8),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_mebibyte_stays_small(tmp_path, case):
    opener, name, make, most = BOMBS[case]
    data = make()
    path = write_bundle(tmp_path, data) if opener is TensorBundle else tmp_path / name
    if opener is not TensorBundle:
        path.write_bytes(data)
    assert MIB // 4 < len(data) < 2 * MIB
    with memory(most * MIB):
        if case == "long names":
            assert len(opener(path).tensors) == 19_999
        else:
            with pytest.raises(ValueError, match="more than"):
                opener(path)


# Real files, damaged at random: right values or ValueError.

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

    from bigbird_port.checkpoint.runs import masked_crc32c

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


def test_the_limits_leave_room():
    """Ten times what the largest model with its optimizer needs."""
    store = TensorBundle(DEMO / "model.ckpt-30")
    assert limits.MAX_TENSORS > 10 * 1200
    assert 4 * max(map(len, store.tensors)) < limits.MAX_NAME_BYTES
