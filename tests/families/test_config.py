import json

import pytest

from bigbird_port.families.bigbird.config import BigBirdConfig, read_config
from tests.conftest import CASES, DEMO


def test_defaults_are_those_of_the_released_base_model():
    config = BigBirdConfig()
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (50358, 768, 12)
    assert (config.block_size, config.num_random_blocks, config.max_position_embeddings) == (64, 3, 4096)
    assert (config.hidden_act, config.layer_norm_eps, config.attention_type) == ("gelu_new", 1e-12, "block_sparse")


@pytest.mark.peer
def test_defaults_equal_transformers():
    peer = pytest.importorskip("transformers").BigBirdConfig()
    ours = BigBirdConfig().to_dict()
    shared = {name for name in ours if hasattr(peer, name)}
    assert len(shared) >= 24
    assert {name: ours[name] for name in shared} == {name: getattr(peer, name) for name in shared}


def test_reads_the_originals_flags_under_their_names():
    config = read_config(DEMO / "pretrain.config")
    assert config.hidden_act == "gelu_new"  # the original's "gelu" is the tanh approximation
    assert (config.num_random_blocks, config.block_size, config.max_encoder_length) == (3, 16, 528)
    assert not config.rescale_embeddings


def test_flags_whose_names_differ_are_not_lost():
    flags = json.loads((DEMO / "pretrain.config").read_text())
    flags |= {"num_rand_blocks": 2, "rescale_embedding": True, "hidden_act": "relu", "use_bias": False}
    config = BigBirdConfig.from_dict(flags)
    assert (config.num_random_blocks, config.rescale_embeddings) == (2, True)
    assert (config.hidden_act, config.use_bias) == ("relu", False)


def test_gelu_of_transformers_is_the_exact_one():
    assert BigBirdConfig.from_dict({"model_type": "big_bird", "hidden_act": "gelu"}).hidden_act == "gelu"


def test_json_round_trip_keeps_every_field():
    config = BigBirdConfig(max_encoder_length=1000, random_blocks="transformers", classifier_dropout=0.3, num_labels=5)
    values = json.loads(json.dumps(config.to_json_values("BigBirdModel")))
    assert BigBirdConfig.from_dict(values) == config


@pytest.mark.peer
def test_transformers_reads_what_we_write(tmp_path):
    peer = pytest.importorskip("transformers").BigBirdConfig
    config = BigBirdConfig(hidden_size=48, num_attention_heads=4, use_bias=False, num_labels=5, hidden_act="relu")
    (tmp_path / "config.json").write_text(json.dumps(config.to_json_values("BigBirdModel")))
    read = peer.from_pretrained(tmp_path)
    fields = {name: value for name, value in config.to_dict().items() if name != "norm_type"}  # not transformers'
    assert {name: getattr(read, name) for name in fields} == fields


@pytest.mark.peer
def test_reads_what_transformers_writes(tmp_path):
    peer = pytest.importorskip("transformers").BigBirdConfig
    peer(hidden_size=48, num_attention_heads=4, num_labels=5, block_size=16).save_pretrained(tmp_path)
    config = read_config(tmp_path / "config.json")
    assert (config.hidden_size, config.num_attention_heads) == (48, 4)
    assert (config.num_labels, config.block_size) == (5, 16)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, ["hidden_size is 30", "divisible by num_attention_heads = 4"]),
        ({"num_random_blocks": 0}, ["num_random_blocks", "0", "at least 1"]),
        ({"max_encoder_length": 8192}, ["max_encoder_length", "8192", "max_position_embeddings"]),
        ({"max_encoder_length": 0}, ["max_encoder_length", "at least 1 or None"]),
        ({"hidden_act": "swish"}, ["hidden_act", "swish", "gelu_new"]),
        ({"attention_type": "simulated_sparse"}, ["attention_type", "simulated_sparse", "original_full"]),
        ({"random_blocks": "none"}, ["random_blocks", "none", "original"]),
        ({"classifier_style": "mine"}, ["classifier_style", "mine", "transformers"]),
        ({"vocab_size": "50358"}, ["vocab_size", "'50358'", "int"]),
        ({"vocab_size": True}, ["vocab_size", "True", "int"]),
        ({"use_bias": 1}, ["use_bias", "1", "bool"]),
        ({"hidden_dropout_prob": 1.0}, ["hidden_dropout_prob", "1.0", "below 1"]),
        ({"layer_norm_eps": 0.0}, ["layer_norm_eps", "above 0"]),
        ({"pad_token_id": 60000}, ["pad_token_id", "60000", "vocabulary"]),
        ({"problem_type": "ranking"}, ["problem_type", "ranking", "regression", "None"]),
        ({"add_cross_attention": True}, ["add_cross_attention", "True", "is_decoder"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "at least 1"]),
    ],
)
def test_wrong_values_name_field_value_and_rule(settings, words):
    with pytest.raises(ValueError, match="config: ") as caught:
        BigBirdConfig(**settings)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "bert"}, ["model_type", "bert", "another model"]),
        ({"model_type": "big_bird", "num_random_block": 2}, ["num_random_block", "did you mean 'num_random_blocks'"]),
        ({"model_type": "big_bird", "position_embedding_type": "relative"}, ["position_embedding_type", "absolute"]),
        ({"model_type": "big_bird", "tie_word_embeddings": False}, ["tie_word_embeddings", "tied"]),
        ({"num_rand_blocks": 3, "norm_type": "midnorm"}, ["norm_type", "midnorm", "postnorm"]),
        ({"num_rand_blocks": 3, "hidden_act": "gelu_new"}, ["hidden_act", "gelu_new"]),
    ],
)
def test_files_of_another_kind_are_refused(values, words):
    with pytest.raises(ValueError, match="config: ") as caught:
        BigBirdConfig.from_dict(values)
    assert all(word in str(caught.value) for word in words)


def test_replace_refuses_names_that_are_no_field():
    with pytest.raises(ValueError, match="no field 'block_sizes': did you mean 'block_size'"):
        BigBirdConfig().replace(block_sizes=3)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff\xfe", "[" * 100_000])
def test_unreadable_files_are_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json"):
        read_config(path)


def test_every_golden_case_was_found():
    assert len(CASES) >= len({case.id for case in CASES}) >= 2
