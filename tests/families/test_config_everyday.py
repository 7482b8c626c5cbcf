"""What scripts do with a configuration: assign to it, write it, read it, and give it fields of their own."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

import models_flax
import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig

KINDS = (BigBirdConfig, BigBirdPegasusConfig)
SMALL = BigBirdConfig(
    vocab_size=60,
    hidden_size=8,
    num_attention_heads=2,
    num_hidden_layers=1,
    intermediate_size=8,
    max_position_embeddings=64,
    block_size=4,
)


@pytest.mark.parametrize("kind", KINDS)
def test_trainers_assignments_work(kind):
    config = kind()
    before = hash(config)
    config.use_cache, config.pad_token_id, config.eos_token_id = False, 5, 6
    config.problem_type = "regression"
    config.id2label = dict(enumerate("abc"[: config.num_labels]))
    assert config == kind(
        use_cache=False, pad_token_id=5, eos_token_id=6, problem_type="regression", id2label=config.id2label
    )
    assert config.label2id["a"] == 0
    assert hash(config) != before  # so that nothing that was compiled for the old values runs
    config.update({"use_cache": True, "pad_token_id": 0})
    assert (config.use_cache, config.pad_token_id) == (True, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_labels", "attention_type", "use_bias", "head_dim"])
def test_what_a_model_is_made_by_stays(kind, name):
    config = kind()
    with pytest.raises(FrozenInstanceError, match=f"{name} cannot be assigned, because a model is made by it"):
        setattr(config, name, getattr(config, name))
    assert config == kind()


def test_wrong_assignments_say_what_is_wrong():
    config = BigBirdConfig()
    for name, value, words in (
        ("pad_token_id", -1, "an id of the vocabulary"),
        ("use_cache", "no", "use_cache is 'no'"),
        ("id2label", {0: "a", 1: "b", 2: "c"}, "has 3 names, but num_labels is 2"),
        ("use_caches", True, "did you mean 'use_cache'"),
        ("mine", object(), "no JSON value"),
    ):
        with pytest.raises((ValueError, FrozenInstanceError), match=words):
            setattr(config, name, value)
    assert config == BigBirdConfig()


@pytest.mark.parametrize("kind", KINDS)
def test_other_fields_are_kept(kind):
    config = kind(finetuning_task="reviews")
    config.mine = {"a": [1]}
    config._name_or_path = config.torch_dtype = "x"  # of a session, not written
    assert (config.finetuning_task, config.mine, config._name_or_path) == ("reviews", {"a": [1]}, "x")
    assert config == kind(extra={"finetuning_task": "reviews", "mine": {"a": [1]}})
    assert json.loads(config.to_json_string()) == {
        "model_type": kind.model_type,
        "finetuning_task": "reviews",
        "mine": {"a": [1]},
    }
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert again.mine == {"a": [1]}
    with pytest.raises(ValueError, match="no field 'vocab_sizes': did you mean 'vocab_size'"):
        kind(vocab_sizes=3)


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_back(kind, tmp_path):
    config = kind(num_labels=2, output_attentions=True, mine=3, id2label={0: "no", 1: "yes"})
    config.save_pretrained(tmp_path / "new")
    assert kind.from_pretrained(tmp_path / "new") == config
    assert kind.from_json_file(tmp_path / "new/config.json") == config
    changed = kind.from_pretrained(tmp_path / "new", num_labels=4, other="x")
    assert (changed.num_labels, changed.id2label[3], changed.other) == (4, "LABEL_3", "x")
    assert kind.from_dict(json.loads(config.to_json_string(use_diff=False))) == config
    assert (config.use_return_dict, config.tie_word_embeddings) == (True, True)
    with pytest.raises(ValueError, match="nowhere: there is no such folder or file"):
        kind.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"a/b: .*run 'hf download a/b"):
        kind.from_pretrained("a/b", local_files_only=True)


@torch.no_grad()
def test_a_model_follows_what_is_assigned():
    """In both frameworks, also where a call was compiled for the old values."""
    ids = np.array([[7, 8, 0, 9, 10, 11, 12, 13]])
    for model, given in (
        (models_torch.BigBirdModel.from_config(SMALL.replace()), torch.tensor(ids)),
        (models_flax.FlaxBigBirdModel.from_config(SMALL.replace()), ids),
    ):
        before = np.asarray(model(given).last_hidden_state.__array__())
        model.config.pad_token_id = 13
        after = np.asarray(model(given).last_hidden_state.__array__())
        expected = np.asarray(model(given, attention_mask=given != 13).last_hidden_state.__array__())
        assert np.array_equal(after[:, :7], expected[:, :7])
        assert not np.allclose(before[:, 0], after[:, 0])
        model.config.output_hidden_states = True
        assert len(model(given).hidden_states) == 2
