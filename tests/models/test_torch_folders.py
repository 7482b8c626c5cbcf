"""Saving, loading and resizing torch models."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import models_torch
from bigbird_port.families.bigbird.heads import HEADS
from tests.models.torch_models import DECODER, FULL, TINY, model_class, random_ids


def same(first, second):
    """Whether two models have the same weights and the same configuration."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) and first.config == second.config


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", ["5GB", 2000])
def test_what_was_saved_is_loaded(head, size, tmp_path):
    model = model_class(head).from_config(TINY.replace(random_blocks="original"), seed=3)
    model.save_pretrained(tmp_path / "new" / "folder", max_shard_size=size)
    again = model_class(head).from_pretrained(tmp_path / "new" / "folder")
    assert same(model, again)
    assert not again.training
    assert again.initialised == []


def test_shards_hold_what_the_index_says(tmp_path):
    model = models_torch.BigBirdForMaskedLM.from_config(TINY)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    held = {}
    for name in files:
        with safe_open(tmp_path / name, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 4000
        assert all(index["weight_map"][key] == name for key in tensors)
        held |= tensors
    assert held.keys() == model.state_dict().keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in held.values())


def test_saving_replaces_the_weights_that_stand_there(tmp_path):
    """Or the next reader would find the old ones."""
    models = [models_torch.BigBirdModel.from_config(TINY, seed) for seed in range(3)]
    (tmp_path / "notes.txt").write_text("mine")
    for model, size in zip(models, ("5GB", "4KB", 10**6), strict=True):
        model.save_pretrained(tmp_path, max_shard_size=size)
        assert same(model, models_torch.BigBirdModel.from_pretrained(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "notes.txt"}


@pytest.mark.parametrize("size", ["5 apples", "", 0, -1, "1.5TB"])
def test_a_shard_size_that_is_none_is_refused(size, tmp_path):
    with pytest.raises(ValueError, match="max_shard_size: .* is not a size"):
        models_torch.BigBirdModel.from_config(TINY).save_pretrained(tmp_path / "out", max_shard_size=size)
    assert not (tmp_path / "out").exists()


def test_a_bin_file_is_loaded(tmp_path):
    model = models_torch.BigBirdForPreTraining.from_config(TINY)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert same(model, models_torch.BigBirdForPreTraining.from_pretrained(tmp_path))


class Harmful:
    """Touches a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["code", "garbage", "empty", "no tensors"])
def test_a_bin_file_that_holds_no_weights_is_named(kind, tmp_path):
    models_torch.BigBirdModel.from_config(TINY).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    file, mark = tmp_path / "pytorch_model.bin", tmp_path / "mark"
    if kind == "code":
        torch.save({"weight": Harmful(mark)}, file)
    elif kind == "no tensors":
        torch.save({"weight": 3}, file)
    else:
        file.write_bytes(b"" if kind == "empty" else b"\x80\x02garbage")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        models_torch.BigBirdModel.from_pretrained(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("weight_map", [None, {"a": 1}, {"a": "../model.safetensors"}, {"a": "absent.safetensors"}])
def test_a_wrong_index_is_named(weight_map, tmp_path):
    models_torch.BigBirdModel.from_config(TINY).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=str(tmp_path)):
        models_torch.BigBirdModel.from_pretrained(tmp_path)


def test_the_pooler_can_be_left_out(tmp_path):
    model = models_torch.BigBirdModel.from_config(TINY, add_pooling_layer=False)
    output = model(random_ids(1, 20))
    assert output.pooler_output is None
    assert model.pooler is None
    whole = models_torch.BigBirdModel.from_config(TINY)
    assert torch.equal(whole(random_ids(1, 20)).last_hidden_state, output.last_hidden_state)
    whole.save_pretrained(tmp_path / "whole")
    assert same(models_torch.BigBirdModel.from_pretrained(tmp_path / "whole", add_pooling_layer=False), model)
    model.save_pretrained(tmp_path / "less")
    with pytest.raises(ValueError, match=r"no weights for pooler\.kernel, pooler\.bias.*init_seed"):
        models_torch.BigBirdModel.from_pretrained(tmp_path / "less")
    again = models_torch.BigBirdModel.from_pretrained(tmp_path / "less", add_pooling_layer=False, init_seed=0)
    assert same(again, model)
    assert again.initialised == []


def test_question_answering_can_have_a_pooler(tmp_path):
    model = models_torch.BigBirdForQuestionAnswering.from_config(TINY, add_pooling_layer=True)
    model.save_pretrained(tmp_path)
    assert same(models_torch.BigBirdForQuestionAnswering.from_pretrained(tmp_path, add_pooling_layer=True), model)
    without = models_torch.BigBirdForQuestionAnswering.from_pretrained(tmp_path)
    assert same(without, models_torch.BigBirdForQuestionAnswering.from_config(TINY))
    with pytest.raises(ValueError, match="BigBirdForMaskedLM has no such choice"):
        models_torch.BigBirdForMaskedLM.from_config(TINY, add_pooling_layer=False)


def test_cross_attention_starts_from_a_seed(tmp_path):
    models_torch.BigBirdForCausalLM.from_config(DECODER).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no weights for encoder.layer.0.crossattention"):
        models_torch.BigBirdForCausalLM.from_pretrained(tmp_path, add_cross_attention=True)
    model = models_torch.BigBirdForCausalLM.from_pretrained(tmp_path, add_cross_attention=True, init_seed=0)
    assert len(model.initialised) == 2 * 10
    model.save_pretrained(tmp_path / "more")
    assert same(models_torch.BigBirdForCausalLM.from_pretrained(tmp_path / "more"), model)


@pytest.mark.parametrize("head", ["base", "masked-lm", "pretraining", "causal-lm", "qa"])
def test_the_vocabulary_grows_and_shrinks(head, tmp_path):
    model, ids = model_class(head).from_config(FULL), random_ids(1, 20)
    state, before = torch.get_rng_state(), model(ids).to_tuple()[0]
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    table = model.resize_token_embeddings(100, seed=4)
    assert torch.equal(state, torch.get_rng_state())
    assert table is model.get_input_embeddings()
    assert table.weight.shape == (table.num_embeddings, 16) == (100, 16)
    assert 0.2 < table.weight[90:].std() < 0.4  # initializer_range is 0.3
    after = model(ids).to_tuple()[0]
    if after.shape[-1] == 100:
        assert torch.equal(after[..., :90], before)
        assert model.cls.predictions.bias.shape == (100,)
    else:
        assert torch.equal(after, before)
    model(torch.full((1, 3), 99))
    model.save_pretrained(tmp_path)
    assert same(model_class(head).from_pretrained(tmp_path), model)
    model.resize_token_embeddings(90)
    assert torch.equal(model(ids).to_tuple()[0], before)
    assert model.config == model_class(head).from_config(FULL).config
    with pytest.raises(ValueError, match="input_ids at"):
        model(torch.full((1, 3), 99))
    with pytest.raises(ValueError, match="vocab_size is 0"):
        model.resize_token_embeddings(0)


def test_input_embeddings_are_set_and_tied():
    model = models_torch.BigBirdForMaskedLM.from_config(FULL)
    table = torch.nn.Embedding(90, 16)
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table
    model(random_ids(1, 20)).logits[..., 77].sum().backward()
    assert table.weight.grad[77].abs().max() > 0
    with pytest.raises(ValueError, match=r"shape \[91, 16\], expected \[90, 16\]"):
        model.set_input_embeddings(torch.nn.Embedding(91, 16))


def test_weights_are_mapped_and_what_is_written_to_them_stays_in_memory(tmp_path):
    folder = tmp_path / "model"
    models_torch.BigBirdModel.from_config(TINY).save_pretrained(folder)
    file = folder / "model.safetensors"
    before, ids = file.read_bytes(), random_ids(1, 20)
    model = models_torch.BigBirdModel.from_pretrained(folder)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(file) in maps.read_text()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(ids).last_hidden_state.pow(2).sum().backward()
    optimizer.step()
    fresh = models_torch.BigBirdModel.from_pretrained(folder)
    assert not torch.equal(model.embeddings.LayerNorm.weight, fresh.embeddings.LayerNorm.weight)
    assert file.read_bytes() == before
    model.save_pretrained(folder)  # over the file that is mapped
    assert file.read_bytes() != before
    again = models_torch.BigBirdModel.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
