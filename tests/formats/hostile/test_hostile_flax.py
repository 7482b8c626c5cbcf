"""Hostile Flax parameter files and Orbax folders."""

import msgpack
import numpy as np
import pytest

from bigbird_port.formats.flax.msgpack_reader import FlaxMsgpack
from bigbird_port.formats.flax.orbax_reader import OrbaxFolder
from bigbird_port.formats.store import read
from tests.formats.hostile.hostile import array, refused


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
    "unused code": (b"\x81\xa1a\xc1", "a is of kind 0xc1: expected an array"),
    "deep lists": (b"\x81\xa1a" + b"\x91" * 100 + b"\xc0", "nested more than 64 deep"),
    "long text": (b"\x81\xa1a\xdb\xff\xff\xff\xf0", "truncated"),
    "endless list": (b"\x81\xa1a\xdd\xff\xff\xff\xff", "truncated"),
    "key is a number": (msgpack.packb({1: array()}), "a key: expected a value of kind string"),
    "empty key": (msgpack.packb({"": array()}), "printable characters"),
    "unprintable key": (msgpack.packb({"\x1b": array()}), "printable characters"),
    "long key": (msgpack.packb({"a" * 600: array()}), "a string has 600 bytes"),
    "key twice": (b"\x82" + 2 * (b"\xa1a" + msgpack.packb(array())), "the key 'a' is there twice"),
    "name twice": (msgpack.packb({"a": {"b": array()}, "a/b": array()}), "a/b is there twice"),
    "key not UTF-8": (b"\x81\xa1\xff" + msgpack.packb(array()), "utf-8"),
    "extension": (msgpack.packb({"a": array(code=4)}), "extension type 4"),
    "dtype": (msgpack.packb({"a": array(dtype="object")}), "unknown dtype 'object'"),
    "negative": (msgpack.packb({"a": array(shape=(-2,))}), "expected a value of kind integer"),
    "fraction": (msgpack.packb({"a": array(shape=(2.0,))}), "expected a value of kind integer"),
    "huge": (msgpack.packb({"a": array(shape=(1 << 40, 1 << 40))}), "are not those of float32"),
    "many axes": (msgpack.packb({"a": array(shape=(1,) * 33)}), "33 sizes"),
    "size": (msgpack.packb({"a": array(data=bytes(7))}), "its 7 bytes are not those of"),
    "inside": (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((2,), "float32", bytes(8))) + b"x")}), "are not"),
    "truncated": (
        msgpack.packb({"a": array()})[:-1],
        "a: truncated: it has 26 bytes, and needs 27 at least: fetch it again",
    ),
    "truncated in its shape": (msgpack.packb({"a": array()})[:7], "truncated: it has 7 bytes, and needs 8 at least"),
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


def test_what_is_no_array_is_listed(tmp_path):
    tree = {"step": 3, "past": -200, "lr": 0.5, "none": None, "yes": True, "no": False, "name": "x" * 3000, "raw": b"x"}
    tree |= {"low": -1, "list": [1, {"deep": array()}], "complex": msgpack.ExtType(2, b"x"), "empty": {}, "a": array()}
    (tmp_path / "model.msgpack").write_bytes(msgpack.packb(tree))
    store = FlaxMsgpack(tmp_path / "model.msgpack")
    assert {name for name, stored in store.tensors.items() if stored.dtype is not None} == {"a", "list/1/deep"}
    assert set(tree) - {"list", "empty"} | {"list/0", "list/1/deep"} == store.tensors.keys()
    with pytest.raises(ValueError, match="step is no array but of kind integer"):
        read(store, "step")
    np.testing.assert_array_equal(read(store, "a"), np.zeros(2, np.float32))


def test_too_many_entries_of_flax(tmp_path, monkeypatch):
    (tmp_path / "model.msgpack").write_bytes(msgpack.packb({name: array() for name in "abc"}))
    monkeypatch.setattr("bigbird_port.formats.flax.msgpack_reader.MAX_TENSORS", 2)
    refused(FlaxMsgpack, tmp_path / "model.msgpack", "more than 2 arrays")
    monkeypatch.setattr("bigbird_port.formats.flax.msgpack_reader.MAX_NODES", 2)
    refused(FlaxMsgpack, tmp_path / "model.msgpack", "more than 2 entries")


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
