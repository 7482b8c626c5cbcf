"""Every reader of weights against the library whose format it is."""

import flax.serialization
import numpy as np
import pytest
import safetensors.numpy

import bigbird_port.formats.runs as runs
from bigbird_port.formats.flax.msgpack_reader import FlaxMsgpack, read_flax_msgpack
from bigbird_port.formats.flax.orbax_reader import OrbaxFolder
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.safetensors.reader import SafetensorsFile, SafetensorsShards
from bigbird_port.formats.store import read
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.saved_model import SavedModel, open_saved_model
from bigbird_port.formats.torch.reader import TorchBin, TorchBinShards
from tests.conftest import DEMO
from tests.formats.hostile.stores import arrays, assert_same, large, nested, write_shards, write_with_tensorflow


@pytest.fixture(scope="module")
def by_tensorflow(tmp_path_factory):
    return write_with_tensorflow(tmp_path_factory.mktemp("tensorflow"))


def test_partitioned_variables_are_made_whole(by_tensorflow):
    expected = np.load(by_tensorflow / "sliced.npz")
    store = TensorBundle(by_tensorflow / "sliced/model")
    for name, source in (("emb/rows", "rows"), ("emb/grid", "grid"), ("aÿĀ/columns", "rows")):
        np.testing.assert_array_equal(read(store, name), expected[source])


def test_types_of_tensorflow(by_tensorflow):
    store = TensorBundle(by_tensorflow / "sliced/model")
    named = {name: stored for name, stored in store.tensors.items() if name.startswith("type/")}
    assert len(named) == 10
    for name, stored in named.items():
        assert stored.dtype.name == name[5:]
        expected = np.arange(6).reshape(2, 3) % (2 if name == "type/bool" else 6)
        np.testing.assert_array_equal(read(store, name).astype(int), expected)


def test_a_string_is_no_array(by_tensorflow):
    store = TensorBundle(by_tensorflow / "sliced/model")
    assert store.tensors["words"].dtype is None
    for use in (read, lambda store, name: list(store.pieces(name))):
        with pytest.raises(ValueError, match=r"model\.index: words is a string: expected a numeric array"):
            use(store, "words")


def test_a_saved_model_has_the_names_of_its_program(by_tensorflow):
    store = open_saved_model(by_tensorflow / "module")
    by_key = np.load(by_tensorflow / "module-by-key.npz")
    assert len(by_key) == len(store.tensors) - 1 == 11  # all but the object graph itself
    for i, scope in enumerate(("transformer_scaffold", "transformer_scaffold_1")):
        for part in ("query", "key"):
            for leaf in ("kernel", "bias"):
                key = f"layers|{i}|attention|{part}|{leaf}|.ATTRIBUTES|VARIABLE_VALUE"
                found = read(store, f"{scope}/big_bird_attention/{part}/{leaf}")
                np.testing.assert_array_equal(found, by_key[key])
    assert read(store, "word_embeddings/embeddings").shape == (5, 8)
    # Two variables of one full name are told apart by their paths.
    assert [float(read(store, f"nameless/{i}")[0]) for i in range(2)] == [0, 1]


def test_a_saved_model_of_keras_has_the_names_of_its_layers(by_tensorflow):
    store, expected = open_saved_model(by_tensorflow / "keras"), np.load(by_tensorflow / "keras.npz")
    assert len(expected) == 4
    for name in expected:
        np.testing.assert_array_equal(read(store, name), expected[name])


def test_optimizer_slots_are_named_as_such(by_tensorflow):
    store = SavedModel(TensorBundle(by_tensorflow / "slots/model"))
    assert {"weight", "weight/.OPTIMIZER_SLOT/m", "weight/.OPTIMIZER_SLOT/v"} < set(store.tensors)
    assert read(store, "weight/.OPTIMIZER_SLOT/m").shape == (2,)


def test_a_checkpoint_by_names_is_no_saved_model():
    with pytest.raises(ValueError, match="it has no _CHECKPOINTABLE_OBJECT_GRAPH"):
        SavedModel(TensorBundle(DEMO / "model.ckpt-30"))


def test_safetensors(tmp_path):
    expected = arrays() | {"large": large()}
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(expected, path, metadata={"format": "pt"})
    store = SafetensorsFile(path)
    assert_same(store, expected)
    assert store.metadata == {"format": "pt"}
    assert store.files == (path,)


def test_safetensors_types_that_no_weight_has(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    values = {"eight": torch.ones(3).to(torch.float8_e4m3fn), "four": torch.ones(2)}
    save_file(values, tmp_path / "model.safetensors")
    store = SafetensorsFile(tmp_path / "model.safetensors")
    assert (store.tensors["eight"].dtype, store.tensors["eight"].type_name) == (None, "of type F8_E4M3")
    np.testing.assert_array_equal(read(store, "four"), [1, 1])
    with pytest.raises(ValueError, match="eight is of type F8_E4M3: expected a numeric array"):
        read(store, "eight")


def halves():
    named = arrays()
    names = sorted(named)
    return {
        "model-00001-of-00002.safetensors": {name: named[name] for name in names[::2]},
        "model-00002-of-00002.safetensors": {name: named[name] for name in names[1::2]},
    }


def test_safetensors_shards(tmp_path):
    index = write_shards(tmp_path, "model.safetensors.index.json", halves(), safetensors.numpy.save_file)
    store = SafetensorsShards(index)
    assert_same(store, arrays())
    assert store.files == (index, *(tmp_path / file for file in halves()))


def test_flax_msgpack(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(flax.serialization.to_bytes(nested(arrays() | {"large": large()})))
    assert_same(FlaxMsgpack(path), arrays() | {"large": large()})
    found = read_flax_msgpack(path)
    witness = flax.serialization.msgpack_restore(path.read_bytes())
    for name, values in found.items():
        node = witness
        for key in name.split("/"):
            node = node[key]
        np.testing.assert_array_equal(values, node)


def test_flax_arrays_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("flax.serialization.MAX_CHUNK_SIZE", 16)  # flax splits arrays over 1 GiB
    named = {"bert/matrix": arrays()["bert/matrix"], "small": np.arange(4, dtype=np.int8)}
    (tmp_path / "model.msgpack").write_bytes(flax.serialization.msgpack_serialize(nested(named)))
    assert b"__msgpack_chunked_array__" in (tmp_path / "model.msgpack").read_bytes()
    assert_same(FlaxMsgpack(tmp_path / "model.msgpack"), named)


def torch_tensors():
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "bert.transposed": base.T,
        "bert.strided": base[1:, ::2],
        "bert.base": base,
        "bert.half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "bert.whole": torch.arange(3),
        "bert.scalar": torch.tensor(3.0),
        "bert.large": torch.from_numpy(large()),
    }
    expected = {name: values.float().numpy() for name, values in tensors.items()}
    expected["bert.half"] = expected["bert.half"].astype("bfloat16")
    expected["bert.whole"] = tensors["bert.whole"].numpy()
    return tensors, expected


@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_bin(tmp_path, is_zip):
    import torch

    tensors, expected = torch_tensors()
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=is_zip)
    assert_same(TorchBin(path), expected)


def test_torch_shards(tmp_path):
    import torch

    tensors, expected = torch_tensors()
    names = sorted(tensors)
    shards = {
        f"pytorch_model-0000{i + 1}-of-00002.bin": {name: tensors[name] for name in names[i::2]} for i in range(2)
    }
    index = write_shards(tmp_path, "pytorch_model.bin.index.json", shards, torch.save)
    store = TorchBinShards(index)
    assert_same(store, expected)
    assert len(store.files) == 3


def save_with_orbax(folder, named, checkpointer="StandardCheckpointer"):
    import orbax.checkpoint as ocp

    with getattr(ocp, checkpointer)() as saver:
        saver.save(folder, nested(named))


@pytest.mark.parametrize("checkpointer", ["StandardCheckpointer", "PyTreeCheckpointer"])
def test_orbax(tmp_path, checkpointer):
    expected = {name: arrays()[name] for name in ("bert/matrix", "bert/half", "bert/scalar", "bert/type/int32")}
    save_with_orbax(tmp_path / "tree", expected, checkpointer)
    store = OrbaxFolder(tmp_path / "tree")
    assert_same(store, expected)
    assert tmp_path / "tree/_METADATA" in store.files


def test_no_piece_is_larger_than_a_read(tmp_path, monkeypatch):
    """Values do not come by a mapping of the file, nor all at once."""
    monkeypatch.setattr(runs, "PIECE_BYTES", 64)
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"x": np.arange(100, dtype=np.float32)}, path)
    pieces = list(SafetensorsFile(path).pieces("x"))
    assert [piece.nbytes for piece in pieces] == [64] * 6 + [16]
    np.testing.assert_array_equal(np.concatenate(pieces), np.arange(100))


# open_store: what is in a folder or file -> style and kind of store.


def save(folder, file):
    """Write one small weight file of the kind that its name tells."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {"bert/matrix": arrays()["bert/matrix"]}
    if file.endswith(".safetensors"):
        metadata = {"format": "bigbird-port neutral" if "neutral" in file else "pt"}
        safetensors.numpy.save_file(named, folder / file, metadata)
    elif file.endswith(".msgpack"):
        (folder / file).write_bytes(flax.serialization.to_bytes(nested(named)))
    elif file.endswith(".bin"):
        import torch

        torch.save({name: torch.from_numpy(values) for name, values in named.items()}, folder / file)
    elif file == "orbax":
        save_with_orbax(folder / file, named)
    elif file.endswith("safetensors.index.json"):
        write_shards(folder, file, {"shard.safetensors": named}, safetensors.numpy.save_file)
    elif file.endswith("bin.index.json"):
        import torch

        shard = {name: torch.from_numpy(values) for name, values in named.items()}
        write_shards(folder, file, {"shard.bin": shard}, torch.save)
    return folder / file


KINDS = [
    ("model.neutral.safetensors", "neutral", SafetensorsFile),
    ("model.safetensors", "torch", SafetensorsFile),
    ("model.safetensors.index.json", "torch", SafetensorsShards),
    ("pytorch_model.bin", "torch", TorchBin),
    ("pytorch_model.bin.index.json", "torch", TorchBinShards),
    ("flax_model.msgpack", "flax", FlaxMsgpack),
    ("orbax", "flax", OrbaxFolder),
]


@pytest.mark.parametrize(("file", "style", "kind"), KINDS)
def test_a_folder_and_its_file_are_opened(tmp_path, file, style, kind):
    written = save(tmp_path, file)
    (tmp_path / "config.json").write_text("{}")
    opened = open_store(tmp_path)
    assert (opened.path, opened.style, type(opened.store)) == (tmp_path, style, kind)
    assert opened.config_file == tmp_path / "config.json"
    assert_same(opened.store, {"bert/matrix": arrays()["bert/matrix"]})
    itself = open_store(written)
    assert (itself.style, type(itself.store)) == (style, kind)
    assert open_store(tmp_path, config_file=tmp_path / "other").config_file == tmp_path / "other"


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "flax_model.msgpack"])
def test_a_file_is_known_by_its_content(tmp_path, file):
    save(tmp_path, file).rename(tmp_path / "weights")
    assert_same(open_store(tmp_path / "weights").store, {"bert/matrix": arrays()["bert/matrix"]})


def test_the_first_of_several_kinds_counts(tmp_path):
    for file, style, kind in reversed(KINDS):
        save(tmp_path, file)
        opened = open_store(tmp_path)
        assert (opened.style, type(opened.store)) == (style, kind)


def test_what_convert_wrote_is_opened(tmp_path):
    for file in DEMO.iterdir():
        (tmp_path / "tf").mkdir(exist_ok=True)
        (tmp_path / "tf" / file.name).write_bytes(file.read_bytes())
    assert open_store(tmp_path).style == "original"
    for folder, file in (("flax", "flax_model.msgpack"), ("torch", "model.safetensors")):
        save(tmp_path / folder, file)
        opened = open_store(tmp_path)
        assert (opened.path, opened.style) == (tmp_path / folder, folder)
    save(tmp_path / "neutral", "model.neutral.safetensors")
    assert open_store(tmp_path).style == "neutral"


def test_tensorflow_checkpoints_are_opened(by_tensorflow):
    for given in (DEMO, DEMO / "model.ckpt-30", DEMO / "model.ckpt-30.index"):
        opened = open_store(given)
        assert (opened.path, opened.style) == (DEMO / "model.ckpt-30", "original")
        assert opened.config_file == DEMO / "pretrain.config"
    for given in (by_tensorflow / "module", by_tensorflow / "module/saved_model.pb"):
        assert (open_store(given).path, open_store(given).style) == (by_tensorflow / "module", "saved-model")
    assert open_store(by_tensorflow / "slots").style == "saved-model"
    assert open_store(by_tensorflow / "sliced/model").style == "original"


def test_what_is_no_checkpoint_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(ValueError, match=r"no weights in this folder; looked for .*model\.safetensors.*notes\.txt"):
        open_store(tmp_path)
    with pytest.raises(ValueError, match=r"notes\.txt: expected weights, found a text of 5 bytes, 'words'"):
        open_store(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="there is no such file"):
        open_store(tmp_path / "absent")
