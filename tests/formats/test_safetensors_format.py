import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings

from bigbird_port.formats.safetensors.writer import _DTYPES, SafetensorsFormat
from tests.formats.execute import files_of, numbered, planned, write_all
from tests.formats.strategies import array_sets, same


@settings(max_examples=60, deadline=None)
@given(array_sets)
def test_one_file_is_the_librarys_byte_for_byte(arrays):
    files = files_of(SafetensorsFormat({"format": "pt"}), arrays)
    assert files == {"model.safetensors": safetensors.numpy.save(arrays, {"format": "pt"})}


def test_every_dtype_lies_where_the_library_puts_it():
    arrays = {f"{i}{name}": numbered(ml_dtypes.bfloat16 if name == "bfloat16" else name, 3, 2)
              for i, name in enumerate(_DTYPES)}  # fmt: skip
    assert len(arrays) == 13
    for metadata in (None, {}, {"head": 'é"\n'}):
        (data,) = files_of(SafetensorsFormat(metadata), arrays).values()
        assert data == safetensors.numpy.save(arrays, metadata)


def test_several_metadata_keys_are_all_there():
    metadata = {"b": "1", "a": "2", "c": "3"}
    (data,) = files_of(SafetensorsFormat(metadata), {"x": numbered("f4", 2)}).values()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"] == metadata
    assert len(data) == len(safetensors.numpy.save({"x": numbered("f4", 2)}, metadata))


def big_set():
    """Sizes 400, 1200, 400, 800, 20 bytes: with a limit of 1000 one is too large for any shard."""
    return {name: numbered("f4", size) for name, size in (("e", 100), ("d", 300), ("c", 100), ("b", 200), ("a", 5))}


def test_shards_are_transformers(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    split = hub.split_torch_state_dict_into_shards
    torch = pytest.importorskip("torch")
    arrays = big_set()
    write_all(tmp_path, SafetensorsFormat({"format": "pt"}, max_shard_size=1000), arrays)
    expected = split({name: torch.tensor(array) for name, array in arrays.items()},
                     filename_pattern="model{suffix}.safetensors", max_shard_size=1000)  # fmt: skip
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == expected.tensor_to_filename
    assert index["metadata"]["total_size"] == expected.metadata["total_size"] == 2820
    assert len(expected.filename_to_tensors) == 3
    for file, names in expected.filename_to_tensors.items():
        same(safetensors.numpy.load_file(tmp_path / file), {name: arrays[name] for name in names})


def test_one_shard_is_a_plain_file():
    assert list(files_of(SafetensorsFormat(max_shard_size=2820), big_set())) == ["model.safetensors"]
    assert len(files_of(SafetensorsFormat(max_shard_size=2819), big_set())) == 3
    assert list(files_of(SafetensorsFormat(max_shard_size=1), {})) == ["model.safetensors"]


@pytest.mark.peer
def test_a_sharded_folder_is_the_one_that_transformers_writes_and_loads(tmp_path):
    """Byte for byte, index included: its own save_pretrained is the witness, and its from_pretrained reads ours."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BigBirdConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                        intermediate_size=12, max_position_embeddings=20,
                                        attention_type="original_full")  # fmt: skip
    model = transformers.BigBirdForMaskedLM(config)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=1500)
    state = model.state_dict()
    theirs = {path.name: path.read_bytes() for path in (tmp_path / "theirs").glob("model*")}
    kept = json.loads(theirs["model.safetensors.index.json"])["weight_map"]
    arrays = {name: state[name].numpy() for name in state if name in kept}
    ours = files_of(SafetensorsFormat({"format": "pt"}, max_shard_size=1500), arrays)
    assert len(ours) > 3
    assert ours == theirs
    (tmp_path / "ours").mkdir()
    for name, data in ours.items():
        (tmp_path / "ours" / name).write_bytes(data)
    config.save_pretrained(tmp_path / "ours")
    again = transformers.BigBirdForMaskedLM.from_pretrained(tmp_path / "ours").state_dict()
    assert again.keys() == state.keys()
    for name, values in state.items():
        np.testing.assert_array_equal(again[name].numpy(), values.numpy(), err_msg=name)


@pytest.mark.parametrize("arrays", [{"x": np.zeros(2, "c8")}, {"__metadata__": np.zeros(2, "f4")}])
def test_what_it_cannot_hold_is_named(arrays):
    with pytest.raises(ValueError, match=r"cannot hold (x of dtype complex64|__metadata__)"):
        SafetensorsFormat().plan(planned(arrays))


def test_a_limit_below_one_byte_is_refused():
    with pytest.raises(ValueError, match="max_shard_size is 0, but it must be at least 1"):
        SafetensorsFormat(max_shard_size=0)
