"""One step beside the right path: what is there is offered."""

import json
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy

from bigbird_port.formats.detection import nearby
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.tensorflow.locate import find_checkpoint, find_flags, vocabulary_note
from tests.conftest import DEMO

WEIGHTS = safetensors.numpy.save({"a": np.ones(2, np.float32)}, metadata={"format": "pt"})
SAVED_MODEL = "saved_model.pb"


def tree(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(WEIGHTS if path.endswith((".safetensors", "weights")) else b"{}")
    return root


# files below the path that is given -> what is offered
BELOW = {
    "trainer": (
        ["checkpoint-1000/model.safetensors", "checkpoint-500/model.safetensors", "trainer_state.json"],
        "give one of checkpoint-500, checkpoint-1000",
    ),
    "one": (["0_Transformer/pytorch_model.bin", "1_Pooling/config.json", "modules.json"], "give 0_Transformer"),
    "export": ([f"1612345678/{SAVED_MODEL}", "1612345678/variables/variables.index"], "give 1612345678"),
    "TensorFlow": (["run/model.ckpt-5.index", "run/model.ckpt-5.data-00000-of-00001"], "give run"),
    "two levels": (["runs/7/flax_model.msgpack"], "give runs/7"),
    "what convert wrote": (["out/torch/model.safetensors", "out/flax/orbax/_METADATA"], "one of out/flax, out/torch"),
    "hidden": ([".cache/model.safetensors", "a/model.safetensors"], "give a"),
}


@pytest.mark.parametrize("case", BELOW)
def test_a_folder_too_high(tmp_path, case):
    files, offer = BELOW[case]
    given = tree(tmp_path / "given", *files)
    with pytest.raises(ValueError, match=rf"given: no weights in this folder itself, but below it: .*{offer}$"):
        open_store(given)


def test_a_hub_cache_offers_what_main_is_first(tmp_path):
    repo = tree(tmp_path / "models--a--b", "blobs/00", "snapshots/0aaa/model.safetensors", "snapshots/0bbb/x")
    os.symlink("../../blobs/00", repo / "snapshots/0bbb/model.safetensors")
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("0bbb\n")
    with pytest.raises(ValueError, match=r"give one of snapshots/0bbb, snapshots/0aaa$"):
        open_store(repo)
    with pytest.raises(ValueError, match=r"one of models--a--b/snapshots/0bbb, models--a--b/snapshots/0aaa$"):
        open_store(tmp_path)


FOLDERS = {
    "adapter": (["adapter_config.json", "adapter_model.safetensors"], "an adapter .*merge_and_unload"),
    "DeepSpeed": (["zero_to_fp32.py", "latest"], r"a checkpoint of DeepSpeed.*python zero_to_fp32\.py"),
    "distributed": ([".metadata", "__0_0.distcp"], "a distributed checkpoint of torch.*dcp_to_torch"),
    "shards alone": (["model-00001-of-00002.safetensors"], "shards of a model without their index.*fetch the index"),
    "TensorFlow without index": (["model.ckpt-5.meta"], r"files of a TensorFlow checkpoint without its \.index: fetch"),
    "unfinished": (["model.safetensors.incomplete"], "downloads that did not end: fetch them again"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_kind_of_folder_is_named(tmp_path, kind):
    files, message = FOLDERS[kind]
    with pytest.raises(ValueError, match=f"expected a model, found {message}"):
        open_store(tree(tmp_path, *files))


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_kind_of_folder_is_named_one_level_below(tmp_path, kind):
    """As a trainer's pytorch_model_fsdp_0 or the folder of an adapter's step lies."""
    files, message = FOLDERS[kind]
    tree(tmp_path, "config.json", *(f"part_0/{file}" for file in files))
    with pytest.raises(ValueError, match=rf"/part_0: expected a model, found {message}"):
        open_store(tmp_path)


def test_a_pickle_of_python_is_named(tmp_path):
    tree(tmp_path, "config.json")
    (tmp_path / "params.pkl").write_bytes(pickle.dumps({"params": [1.0]}))
    with pytest.raises(ValueError, match=r"params\.pkl: expected weights, found a Python pickle .*: save|was not exec"):
        open_store(tmp_path)


def test_a_link_to_nothing_says_where_it_leads(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("../blobs/0123")
    for given in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match=r"it is a link to \.\./blobs/0123, which is not there: fetch that file"):
            open_store(given)


def test_every_kind_of_folder_is_tried():
    kinds = [next(kind for kind in nearby.FOLDER_KINDS if kind.is_one(files)) for files, _ in FOLDERS.values()]
    assert sorted(map(id, kinds)) == sorted(map(id, nearby.FOLDER_KINDS))


def test_a_folder_that_lacks_its_weights_says_so(tmp_path):
    tree(tmp_path, "config.json", "tokenizer.json")
    with pytest.raises(
        ValueError, match="no weights in this folder, but a configuration or a tokenizer: fetch the weight"
    ):
        open_store(tmp_path)
    with pytest.raises(
        ValueError, match=r"variables\.index: missing, though saved_model\.pb is there: fetch the folder"
    ):
        open_store(tree(tmp_path / "1", SAVED_MODEL))


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "pytorch_model.fp16.bin", "best.ckpt", "checkpoint_500"])
def test_a_file_of_another_name_is_offered(tmp_path, name):
    tree(tmp_path, "config.json", "training_args.bin")
    (tmp_path / name).write_bytes(WEIGHTS)
    with pytest.raises(ValueError, match=f"no weights under a usual name, but files that can be read: give {name}$"):
        open_store(tmp_path)
    assert open_store(tmp_path / name).store.tensors  # what is offered is read


def test_the_folder_above_is_offered(tmp_path):
    tree(tmp_path, "model.safetensors", "tokenizer/vocab.json")
    with pytest.raises(ValueError, match=rf"but in the one that it lies in: give {tmp_path}$"):
        open_store(tmp_path / "tokenizer")
    tree(tmp_path / "b", "tokenizer/vocab.json")
    with pytest.raises(ValueError, match=r"no weights in this folder; looked for .*; found vocab\.json$"):
        open_store(tmp_path / "b/tokenizer")


@pytest.mark.parametrize(
    ("given", "offer"),
    [
        ("checkpoint-50", "give checkpoint-500"),
        ("chekpoint-500", "give checkpoint-500"),
        ("Checkpoint-500", "give checkpoint-500"),
        ("model.ckpt", "give one of model.ckpt-5, model.ckpt-30"),
        ("checkpoint-501/model.safetensors", "holds no checkpoint-501; there is something like it in .*-500"),
    ],
)
def test_a_name_that_is_almost_there(tmp_path, given, offer):
    tree(tmp_path, "checkpoint-500/model.safetensors", "model.ckpt-30.index", "model.ckpt-5.index", "model.ckpt-5.meta")
    with pytest.raises(ValueError, match=f"there is no such file or folder.*{offer}"):
        open_store(tmp_path / given)


def test_a_name_like_nothing_there(tmp_path):
    tree(tmp_path, "checkpoint-500/model.safetensors")
    with pytest.raises(ValueError, match="there is no such file or folder; looked for"):
        open_store(tmp_path / "weights")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        open_store(tmp_path / "checkpoint-500/model.safetensors/x")


def test_little_is_looked_at_and_no_link_is_followed(tmp_path, monkeypatch):
    outside = tree(tmp_path / "outside", "model.safetensors")
    given = tree(tmp_path / "given", "a/notes")
    (given / "link").symlink_to(outside)
    with pytest.raises(ValueError, match="no weights in this folder; looked for"):
        open_store(given)
    tree(given, *(f"n{i:03d}/x" for i in range(30)), "z/model.safetensors")
    assert nearby.folders_below(given) == ["z"]
    monkeypatch.setattr(nearby, "MAX_NAMES", 20)
    assert nearby.folders_below(given) == []


def demo(folder):
    for file in DEMO.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / "model.ckpt-30"


@pytest.mark.parametrize("file", ["model.ckpt-30.meta", "model.ckpt-30.data-00000-of-00001", "checkpoint"])
def test_any_file_of_a_checkpoint_leads_to_its_prefix(tmp_path, file):
    prefix = demo(tmp_path)
    if file.endswith(".meta"):
        (tmp_path / file).write_bytes(b"\n\x05graph")
    assert find_checkpoint(tmp_path / file) == prefix
    opened = open_store(tmp_path / file)
    assert (opened.path, opened.style) == (prefix, "original")
    (tmp_path / "model.ckpt-30.index").unlink()
    with pytest.raises(ValueError, match=r"model\.ckpt-30\.index"):
        open_store(tmp_path / file)


@pytest.mark.parametrize("state", ['model_checkpoint_path: "model.ckpt-999"\n', "nothing\n"])
def test_a_newest_that_is_missing_offers_those_that_are_there(tmp_path, state):
    demo(tmp_path)
    (tmp_path / "checkpoint").write_text(state)
    with pytest.raises(ValueError, match=r": give model\.ckpt-30$"):
        open_store(tmp_path)
    (tmp_path / "model.ckpt-4.index").write_bytes(b"")
    with pytest.raises(ValueError, match=r": give one of model\.ckpt-4, model\.ckpt-30$"):
        open_store(tmp_path)


def test_a_checkpoint_file_of_flax_is_no_list(tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"\x81\xa1a\x80")
    with pytest.raises(ValueError, match="no weights under a usual name|no weights in this folder|not a Flax"):
        open_store(tmp_path)


def test_a_vocabulary_that_is_named_and_absent_is_said(tmp_path):
    prefix = demo(tmp_path)
    flags = find_flags(prefix)
    assert "names" not in vocabulary_note(None, None)
    flags.write_text(json.dumps(json.loads(flags.read_text()) | {"vocab_model_file": "/data/vocab/gpt2.model"}))
    note = vocabulary_note(None, flags)
    assert "no vocabulary found: " in note
    assert "names /data/vocab/gpt2.model, which is not there" in note
    assert "--vocab FILE" in note
    assert "which is not there" in vocabulary_note(tmp_path / "other.model", flags)
    assert vocabulary_note(tmp_path / "gpt2.model", flags) == f"vocabulary from {tmp_path / 'gpt2.model'}"
