"""What a configuration keeps beside the model's own fields: labels, transformers' switches, the user's fields."""

import copy
import json
import pickle

import pytest

from bigbird_port.families.bigbird.config import BigBirdConfig

NAMES = {0: "negative", 1: "neutral", 2: "positive"}
FILE = {
    "model_type": "big_bird",
    "id2label": {"0": "negative", "1": "neutral", "2": "positive"},
    "label2id": {"negative": 0, "neutral": 1, "positive": 2},
    "finetuning_task": "reviews",
    "task_specific_params": {"summary": {"lengths": [1, 2.5, None], "early": True}},
    "output_hidden_states": True,
    "tie_encoder_decoder": False,  # of transformers, though it looks like a misspelt is_encoder_decoder
    "extra": "the user's own",
}


def test_labels_follow_transformers_rules():
    config = BigBirdConfig(id2label=NAMES)
    assert (config.num_labels, config.id2label, config.label2id) == (3, NAMES, FILE["label2id"])
    plain = BigBirdConfig(num_labels=3)
    assert plain.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert plain.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}


def test_another_number_of_labels_gives_up_their_names():
    config = BigBirdConfig(id2label=NAMES)
    assert config.replace(num_labels=2) == BigBirdConfig()
    assert config.replace(num_labels=3) == config.replace(block_size=64) == config
    assert config.replace(id2label={0: "no", 1: "yes"}).label2id == {"no": 0, "yes": 1}
    assert config.replace(id2label=None).id2label == BigBirdConfig(num_labels=3).id2label


def test_a_file_keeps_what_it_holds_and_comes_back():
    config = BigBirdConfig.from_dict(FILE)
    assert (config.num_labels, config.id2label[2], config.output_hidden_states) == (3, "positive", True)
    assert config.finetuning_task == "reviews"
    assert config.task_specific_params == FILE["task_specific_params"]
    written = json.loads(json.dumps(config.to_json_values("BigBirdModel")))
    assert {name: written[name] for name in FILE} == FILE
    assert BigBirdConfig.from_dict(written) == config
    assert BigBirdConfig.from_dict(config.to_dict()) == config


def test_defaults_of_transformers_are_not_written():
    values = BigBirdConfig(num_labels=5).to_json_values("BigBirdModel")
    assert not {"id2label", "label2id", "return_dict", "output_attentions"} & set(values)


def test_names_of_the_labels_win_over_their_number_as_in_transformers():
    assert BigBirdConfig.from_dict(FILE | {"num_labels": 9}).num_labels == 3


def test_null_is_as_good_as_absent():
    empty = {"model_type": "big_bird", "id2label": None, "label2id": None, "return_dict": None}
    assert BigBirdConfig.from_dict(empty) == BigBirdConfig()


@pytest.mark.parametrize("name", ["transformers_version", "torch_dtype", "dtype", "_name_or_path", "_commit_hash"])
def test_what_says_how_the_file_was_written_is_left_out_and_named(name):
    values = FILE | {name: "something"}
    assert BigBirdConfig.from_dict(values) == BigBirdConfig.from_dict(FILE)
    assert BigBirdConfig.not_carried(values) == [name]
    assert BigBirdConfig.not_carried(FILE) == []


def test_flags_of_the_original_that_are_no_settings_are_passed_over():
    flags = {"num_rand_blocks": 3, "data_dir": "/data", "learning_rate": 1e-4}
    assert BigBirdConfig.from_dict(flags) == BigBirdConfig()


def test_it_stays_frozen_hashes_copies_and_pickles():
    config = BigBirdConfig.from_dict(FILE)
    for same in (copy.deepcopy(config), copy.copy(config), pickle.loads(pickle.dumps(config))):
        assert same == config
        assert hash(same) == hash(config)
    assert config != config.replace(id2label=NAMES | {0: "bad"})
    assert config != config.replace(extra={})
    for change in (
        lambda: config.id2label.update({0: "x"}),
        lambda: config.label2id.pop("neutral"),
        lambda: config.extra.__setitem__("a", 1),
        lambda: config.extra["task_specific_params"].clear(),
    ):
        with pytest.raises(TypeError, match="a configuration does not change"):
            change()
    config.task_specific_params["summary"].clear()  # a copy
    config.to_dict()["task_specific_params"].clear()
    assert config.task_specific_params == FILE["task_specific_params"]


def test_a_name_that_nothing_has_is_no_attribute():
    with pytest.raises(AttributeError, match="finetuning_task"):
        _ = BigBirdConfig().finetuning_task


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"id2label": ["a", "b"]}, ["id2label", "map ids to names"]),
        ({"id2label": {"one": "a"}}, ["id2label", "one", "integers"]),
        ({"id2label": {"0": "a", 0: "b"}}, ["id2label", "twice"]),
        ({"id2label": NAMES, "num_labels": 5}, ["num_labels is 5", "id2label has 3"]),
        ({"label2id": 3}, ["label2id", "mapping"]),
        ({"num_labels": 10**9}, ["num_labels", "at most 65536"]),
        ({"extra": {"hidden_size": 8}}, ["extra", "hidden_size"]),
        ({"extra": {"dtype": "float16"}}, ["extra", "dtype"]),
        ({"extra": {"mine": object()}}, ["mine", "no JSON value"]),
        ({"extra": {"mine": json.loads("[" * 60 + "]" * 60)}}, ["mine", "nested more than 50 deep"]),
        ({"extra": 3}, ["extra is 3"]),
        ({"return_dict": "yes"}, ["return_dict", "bool"]),
    ],
)
def test_wrong_values_are_named(settings, words):
    with pytest.raises(ValueError, match="config: ") as caught:
        BigBirdConfig(**settings)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("name", ["id2labels", "num_label", "label2ids", "hidden_sizes"])
def test_a_misspelt_field_is_refused_rather_than_kept(name):
    with pytest.raises(ValueError, match=f"no field '{name}': did you mean"):
        BigBirdConfig.from_dict(FILE | {name: 3})
