"""Hostile torch files: pickles, zips, and shards."""

import io
import os
import pickle
import time
import zipfile

import pytest

from bigbird_port.checkpoint import limits, pickle_bounds
from bigbird_port.checkpoint.torch_bin import TorchBin, TorchBinShards
from tests.checkpoint.hostile import refused
from tests.checkpoint.stores import write_shards


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
