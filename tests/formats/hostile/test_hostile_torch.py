"""Hostile torch files: pickles, zips, and shards."""

import io
import os
import pickle
import time
import zipfile

import numpy as np
import pytest

from bigbird_port.formats import limits
from bigbird_port.formats.store import read
from bigbird_port.formats.torch import pickle_bounds
from bigbird_port.formats.torch.reader import TorchBin, TorchBinShards
from tests.formats.hostile.hostile import MIB, memory, refused
from tests.formats.hostile.stores import write_shards


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


def test_long_lists_are_counted(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr("bigbird_port.formats.torch.nested.MAX_ITEMS", 10)
    torch.save({"a": torch.ones(2), "history": list(range(6)), "other": list(range(6))}, tmp_path / "pytorch_model.bin")
    refused(TorchBin, tmp_path / "pytorch_model.bin", "its lists hold more than 10 values")


class Callback:
    """A foreign class with a state and items, as a trainer's callbacks are."""

    def __init__(self, value):
        self.value = {"inner": value}


class Options(dict):
    """A foreign dict."""


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_weights_beside_foreign_objects_are_read_and_nothing_runs(tmp_path, protocol, is_zip):
    import argparse
    import collections
    import pathlib

    import torch

    foreign = {
        "callbacks": {"a": Callback(3), "b": Options(x=1), "c": [pathlib.PurePosixPath("x"), {1, 2}]},
        "hyper_parameters": argparse.Namespace(lr=0.1),
        "harmless": Harmless(),
        "program": Program(str(tmp_path / "ran")),
        "counts": collections.Counter("aab"),
        ("a", 1): torch.ones(1),
    }
    path = tmp_path / "last.ckpt"
    weights = {
        "w": torch.arange(6.0).reshape(2, 3),
        "p": torch.nn.Parameter(torch.ones(2)),
        "b": torch.ones(3).bfloat16(),
    }
    values = foreign | {"state_dict": collections.OrderedDict(weights), "epoch": 3}
    torch.save(values, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    with memory(8 * MIB):
        store = TorchBin(path)
    assert not (tmp_path / "ran").exists()
    held = {name for name, stored in store.tensors.items() if stored.dtype is not None}
    assert held == {f"state_dict/{name}" for name in weights}
    for name, values in weights.items():
        assert np.array_equal(read(store, f"state_dict/{name}").astype(np.float32), values.detach().float().numpy())
    assert store.tensors["hyper_parameters"].type_name == "no array but an object of a foreign class"
    assert {"epoch", "program", "harmless", "callbacks/a", "(tuple)"} <= store.tensors.keys()


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_weights_of_every_protocol(tmp_path, protocol, is_zip):
    import torch

    values = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    path = tmp_path / "pytorch_model.bin"
    torch.save(values, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    store = TorchBin(path)
    assert store.tensors.keys() == values.keys()
    assert np.array_equal(read(store, "a"), np.arange(6, dtype=np.float32).reshape(2, 3))


def test_a_tar_that_is_also_a_pickle_is_not_unpacked(tmp_path, monkeypatch):
    """torch unpacks a tar, as its first releases wrote; here the pickle is read that the file begins with."""
    import tarfile

    import torch

    monkeypatch.setattr(tarfile.TarFile, "extract", lambda *_, **__: pytest.fail("it was unpacked"))
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("\x7f"), io.BytesIO())
    plain = io.BytesIO()
    torch.save({"a": torch.ones(2), "b": Callback(1)}, plain, _use_new_zipfile_serialization=False)
    path = tmp_path / "pytorch_model.bin"
    for content in (data.getvalue(), plain.getvalue() + data.getvalue(), b"\x80\x02" + data.getvalue()[2:]):
        path.write_bytes(content)
        try:
            assert list(read(TorchBin(path), "a")) == [1, 1]
        except ValueError as error:
            assert "pytorch_model.bin" in str(error)


def test_truncated_files_of_old_releases_tell_their_sizes(tmp_path):
    import torch

    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-400])
    with pytest.raises(ValueError, match=rf"truncated: it has {len(whole) - 400} bytes, and .* needs 400 more: fetch"):
        TorchBin(path)
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match="truncated: it has 100 bytes, and ends before its weights begin: fetch it ag"):
        TorchBin(path)


def test_arrays_of_numpy_in_a_pickle_are_named(tmp_path):
    import torch

    torch.save({"a": np.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"expected tensors, found NumPy arrays in a pickle .*numpy\.save_file"):
        TorchBin(tmp_path / "pytorch_model.bin")


def test_a_list_of_state_dicts_is_read_by_its_numbers(tmp_path):
    import torch

    torch.save(({"a": torch.ones(2)}, {"lr": 0.1}), tmp_path / "pytorch_model.bin")
    assert list(TorchBin(tmp_path / "pytorch_model.bin").tensors) == ["0/a", "1/lr"]


def opcodes(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


MAKER = b"ccollections\nOrderedDict\n"
FOREIGN = b"cos\nsystem\n"


@pytest.mark.parametrize(
    "pickled",
    [
        opcodes(MAKER, b"}b"),  # the maker itself gets a state
        opcodes(MAKER, b"}", b"X\x05\0\0\0_makecos\nsystem\nsb"),
        opcodes(FOREIGN, b"}", b"U\x03abcK\x01s", b"b"),  # as does the placeholder's class
        opcodes(FOREIGN, b"U\x03abcK\x01s"),
        opcodes(b"(U\x04trueios\nsystem\n"),
        opcodes(FOREIGN, b"(U\x04trueo"),
        opcodes(b"}U\x01a", FOREIGN, b"U\x04true\x85Rs"),
    ],
)
def test_a_pickle_made_by_hand_changes_nothing_and_runs_nothing(tmp_path, monkeypatch, pickled):
    import torch

    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"it ran {command}"))
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.bin")
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(tmp_path / "plain.bin") as plain, zipfile.ZipFile(path, "w") as made:
        for name in plain.namelist():
            made.writestr(name, pickled if name.endswith("data.pkl") else plain.read(name))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        TorchBin(path)
    torch.save({"a": torch.ones(2), "b": Callback(1)}, path)
    assert "a" in TorchBin(path).tensors  # the makers are as they were


def test_torchscript_is_not_loaded(tmp_path):
    import torch

    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(2), "b": Callback(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    refused(TorchBin, path, "TorchScript")


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


def nested(value, levels):
    for _ in range(levels):
        value = {"x": value}
    return value


def doubled(value, times):
    """A small pickle in which one dict stands in 2**times places."""
    for _ in range(times):
        value = {"x": value, "y": value}
    return value


def laughs(value, times):
    """One list or dict that holds itself ten times, and so on."""
    for _ in range(times):
        value = [value] * 10 if isinstance(value, list) else dict.fromkeys(map(str, range(10)), value)
    return value


def within_itself():
    value = {}
    value["x"] = value
    return value


def torch_values():
    import torch

    return {
        "tensor": (torch.ones(2), "it holds a Tensor, expected a dict of tensors: save one"),
        "endless lists": ({"a": laughs(["ha"], 60)}, "more than 50000 values"),
        "endless dicts": ({"a": laughs({"0": "ha"}, 60), "b": torch.ones(2)}, "more than 50000 values"),
        "itself": ({"a": within_itself()}, "nested more than 64 deep"),
        "deep": (nested({"a": torch.ones(2)}, 70), "nested more than 64 deep"),
        "nameless": ({"": torch.ones(2)}, "printable characters"),
        "twice": ({"a": {"b": torch.ones(2)}, "a/b": torch.ones(2)}, "a/b is there twice"),
        "endless": (doubled({"a": torch.ones(2)}, 20), "more than 50000 values"),
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


def nested_lists(count):
    return b"\x80\x02" + b"]" * count + b"a" * (count - 1) + b"."


PICKLES = {
    "lists in lists": (nested_lists(1_000_000), "more than 5000 values that are not yet in another"),
    "lists in lists, not as many": (nested_lists(100), "nested more than 64 deep"),
    "maps in maps": (b"\x80\x02" + b"}X\1\0\0\0a" * 100 + b"}" + b"s" * 100 + b".", "nested more than 64 deep"),
    "tuples in tuples": (b"\x80\x02)" + b"\x85" * 100 + b".", "nested more than 64 deep"),
    "numbers": (b"\x80\x02" + b"K\0" * 10_000 + b"." + b" " * 10, "more than 5000 values"),
    "numbers that are dropped": (b"\x80\x02" + b"K\x000" * 10_000 + b".", "more than 20000 opcodes"),
    "tuples in tuples, remembered": (b"\x80\x04)\x94" + b"\x85\x94" * 100 + b".", "nested more than 64 deep"),
    "marks": (b"\x80\x02" + b"(" * 10_000 + b".", "more than 5000 values"),
    "nothing to take": (b"\x80\x02" + b"aeust" * 10 + b".", "pytorch_model.bin"),
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("case", PICKLES)
def test_pickles_that_would_take_minutes(tmp_path, monkeypatch, case, is_zip):
    monkeypatch.setattr(pickle_bounds, "MAX_OPCODES", 20_000)
    data, message = PICKLES[case]
    path = tmp_path / "pytorch_model.bin"
    if is_zip:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3\n")
    else:
        path.write_bytes(data)
    begin = time.perf_counter()
    refused(TorchBin, path, message)
    assert time.perf_counter() - begin < 30  # on a busy machine, with its memory traced


def test_the_bounds_of_a_pickle_leave_room(tmp_path):
    """Ten times the weights and slots of the largest model, which are 1200."""
    import torch

    values = {f"encoder.layer.{i}.weight": torch.ones(1) for i in range(600)}
    torch.save(values, tmp_path / "pytorch_model.bin")
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        count = len(list(pickle_bounds.bounded_opcodes(io.BytesIO(archive.read(name)))))
    assert count > 600
    assert count / 600 * 1200 * 10 < limits.MAX_OPCODES
