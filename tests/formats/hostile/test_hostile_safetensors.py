"""Hostile safetensors files and shard indices."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.safetensors.reader import SafetensorsFile, SafetensorsShards
from bigbird_port.formats.store import read
from tests.formats.hostile.hostile import SHARDS, refused, tensors_file
from tests.formats.hostile.stores import write_shards


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
    monkeypatch.setattr("bigbird_port.formats.safetensors.reader.MAX_HEADER_BYTES", 10)
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
