import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbird_port.families.bigbird.config import BigBirdConfig, config_from, read_config
from bigbird_port.families.bigbird.flags import EXPRESSED, KEPT_ELSEWHERE, UNEXPRESSED, flags_json
from bigbird_port.sparse.pattern import has_plan
from tests.conftest import DEMO

CONFIGS = st.builds(
    BigBirdConfig,
    vocab_size=st.integers(100, 60_000),
    hidden_size=st.sampled_from([24, 48]),
    num_hidden_layers=st.integers(1, 30),
    num_attention_heads=st.sampled_from([2, 3, 4]),
    intermediate_size=st.integers(1, 5000),
    hidden_act=st.sampled_from(["gelu_new", "relu", "tanh", "linear"]),
    hidden_dropout_prob=st.floats(0, 0.9),
    attention_probs_dropout_prob=st.floats(0, 0.9),
    max_position_embeddings=st.integers(700, 5000),
    type_vocab_size=st.integers(1, 20),
    initializer_range=st.floats(0.001, 1),
    attention_type=st.sampled_from(["block_sparse", "original_full"]),
    use_bias=st.booleans(),
    rescale_embeddings=st.booleans(),
    block_size=st.integers(1, 100),
    num_random_blocks=st.integers(1, 6),
    num_labels=st.integers(1, 9),
    max_encoder_length=st.integers(1, 700),
)


def test_every_field_is_either_expressed_or_not():
    fields = [field.name for field in dataclasses.fields(BigBirdConfig)]
    assert sorted([*EXPRESSED, *UNEXPRESSED, *KEPT_ELSEWHERE]) == sorted(fields)


@settings(max_examples=100, deadline=None)
@given(CONFIGS)
def test_reading_the_flags_gives_the_configuration(config):
    flags, _ = flags_json(config)
    assert config_from(json.loads(json.dumps(flags)), "flags") == config


def test_the_demo_checkpoints_flags_come_back():
    """The file that the original code wrote: each model setting of ours is in it with the same value."""
    theirs = json.loads((DEMO / "pretrain.config").read_text())
    config = read_config(DEMO / "pretrain.config")
    ours, sentences = flags_json(config, "vocab.model")
    assert {"num_labels", "vocab_model_file"} == set(ours) - set(theirs)
    assert {name: theirs[name] for name in ours if name in theirs} == {
        name: value for name, value in ours.items() if name in theirs
    }
    assert len(ours) == 21
    assert not sentences


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', the exact function, which the original does not have"),
        ({"hidden_act": "selu"}, "hidden_act is 'selu', which the original does not have: it will refuse"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05, for which the original has no flag: it always uses 1e-12"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"random_blocks": "transformers"}, "random_blocks is 'transformers'"),
        ({"classifier_style": "original"}, "classifier_style is 'original'"),
        ({"classifier_dropout": 0.0}, "classifier_dropout is 0.0"),
        ({"pad_token_id": 3}, "pad_token_id is 3"),
        ({"id2label": {0: "no", 1: "yes"}}, "id2label, label2id: the original has no flags for them"),
        ({"extra": {"finetuning_task": "sst"}}, "finetuning_task: the original has no flags for them"),
        ({"vocab_size": 99}, "vocab_size is 99, but the original counts the pieces"),
        ({"max_encoder_length": 640}, "max_encoder_length is 640, for which the original has no plan"),
        ({"max_encoder_length": None}, "4096 is written; shorter inputs get that length's pattern"),
        ({"max_encoder_length": None, "attention_type": "original_full"}, "4096 is written; attention is full"),
    ],
)
def test_what_the_flags_cannot_express_is_said(changes, sentence):
    whole = BigBirdConfig(max_encoder_length=1024)
    assert flags_json(whole)[1] == []
    (said,) = flags_json(whole.replace(**changes))[1]
    assert sentence in said


@pytest.mark.parametrize(
    ("positions", "block_size", "length"),
    [(4096, 64, 4096), (4100, 64, 4096), (1000, 64, 960), (700, 64, 512), (512, 64, 512), (300, 16, 300)],
)
def test_without_a_length_the_longest_that_the_original_runs_is_written(positions, block_size, length):
    """No room past the table of positions, a multiple of the block size, and not where it has no plan (576 .. 704)."""
    config = BigBirdConfig(max_position_embeddings=positions, block_size=block_size)
    flags, (sentence,) = flags_json(config)
    assert flags["max_encoder_length"] == length
    assert f"{length} is written" in sentence
    assert length <= 512 or has_plan(length // block_size, block_size, 3)


def test_a_vocabulary_is_named():
    assert (
        flags_json(BigBirdConfig(vocab_size=99, max_encoder_length=512), "a.model")[0]["vocab_model_file"] == "a.model"
    )
    assert "vocab_model_file" not in flags_json(BigBirdConfig())[0]
