"""BigBird-Pegasus' configuration, and what its schema says."""

import json

import pytest

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.families.pegasus.flags import flags_json
from bigbird_port.families.registry import config_from, families, family_of, find_head, read_config
from bigbird_port.schema.table import unread_of, weights_of
from tests.conftest import GOLDEN

PEGASUS = family_of("bigbird_pegasus")
SMALL = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
}


def test_the_flags_of_the_original_are_read():
    config = read_config(GOLDEN["mini-pegasus"].checkpoint / "summarization.config", PEGASUS)
    assert isinstance(config, BigBirdPegasusConfig)
    assert (config.d_model, config.encoder_layers, config.decoder_layers, config.encoder_attention_heads) == (
        16,
        2,
        2,
        2,
    )
    assert (config.norm_type, config.activation_function, config.use_bias) == ("prenorm", "relu", False)
    assert (config.scale_embedding, config.block_size, config.num_random_blocks) == (True, 16, 3)
    assert (config.max_encoder_length, config.max_decoder_length, config.label_smoothing) == (1024, 16, 0.1)
    assert (config.layer_norm_eps, config.dropout, config.attention_dropout) == (1e-12, 0.1, 0.1)


def test_flags_that_say_little_have_the_originals_defaults():
    config = BigBirdPegasusConfig.from_dict({"num_rand_blocks": 3, "hidden_size": 64, "num_attention_heads": 4})
    assert (config.norm_type, config.use_bias, config.scale_embedding, config.block_size) == (
        "postnorm",
        True,
        False,
        16,
    )
    assert (config.activation_function, config.max_encoder_length, config.decoder_attention_heads) == (
        "gelu_new",
        128,
        4,
    )


def test_flags_that_are_written_are_read_as_the_same():
    config = read_config(GOLDEN["mini-pegasus"].checkpoint / "summarization.config", PEGASUS)
    flags, notes = flags_json(config, "spm.model")
    assert config_from(flags, "flags", PEGASUS) == config
    assert flags["scope"] == "pegasus"
    assert "num_decoder_layers" not in flags
    assert notes == []
    odd, notes = flags_json(config.replace(decoder_layers=1, layer_norm_eps=1e-5), "spm.model")
    assert odd["num_decoder_layers"] == 1
    assert config_from(odd, "flags", PEGASUS).decoder_layers == 1
    assert any("layer_norm_eps is 1e-05" in note for note in notes)


def test_what_is_written_as_json_is_read_as_the_same():
    config = BigBirdPegasusConfig(**SMALL, couple_encoder_decoder=True, extra={"max_length": 9})
    values = json.loads(json.dumps(config.to_json_values("BigBirdPegasusModel")))
    assert config_from(values, "config.json") == config
    assert config.max_length == 9


@pytest.mark.peer
def test_transformers_reads_what_is_written(tmp_path):
    peer = pytest.importorskip("transformers").BigBirdPegasusConfig
    config = BigBirdPegasusConfig(**SMALL, activation_function="relu")
    (tmp_path / "config.json").write_text(json.dumps(config.to_json_values("BigBirdPegasusModel")))
    read = peer.from_pretrained(tmp_path)
    own = set(peer().to_dict()) & set(config.to_dict())
    assert len(own) > 30
    assert {name: getattr(read, name) for name in own} == {name: config.to_dict()[name] for name in own}
    read.save_pretrained(tmp_path / "theirs")
    assert BigBirdPegasusConfig.from_dict(json.loads((tmp_path / "theirs/config.json").read_text())).d_model == 16
    assert config_from(peer().to_dict(), "defaults").activation_function == "gelu_new"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder_layers": 3}, "decoder_layers is 3, but it must be at most encoder_layers = 2"),
        ({"decoder_start_token_id": 40}, "decoder_start_token_id is 40, but it must be an id of the vocabulary"),
        ({"decoder_attention_heads": 4}, "decoder_attention_heads is 4, but it must be encoder_attention_heads = 2"),
        (
            {"couple_encoder_decoder": True, "decoder_ffn_dim": 8},
            "decoder_ffn_dim is 8, but it must be encoder_ffn_dim",
        ),
        ({"norm_type": "none"}, "norm_type is 'none'"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"max_decoder_length": 65}, "max_decoder_length is 65, but it must be at most max_position_embeddings = 64"),
        ({"encoder_layerdrop": 0.1}, "no layer is dropped"),
        ({"hidden_sizes": 1}, "there is no field 'hidden_sizes'"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        BigBirdPegasusConfig(**SMALL).replace(**change)


def test_the_configuration_of_another_family_is_refused():
    with pytest.raises(ValueError, match="configuration of a BigBird-Pegasus model, expected one of a BigBird model"):
        family_of("big_bird").config.from_dict({"model_type": "bigbird_pegasus"})
    with pytest.raises(ValueError, match="a coupled model has no decoder alone"):
        BigBirdPegasusConfig(**SMALL, couple_encoder_decoder=True).for_head("causal-lm")
    with pytest.raises(ValueError, match="BigBird-Pegasus has no head 'masked-lm': expected one of base, conditional"):
        BigBirdPegasusConfig(**SMALL).for_head("masked-lm")


def test_a_model_has_every_weight_once():
    for changes in ({}, {"norm_type": "postnorm", "use_bias": True}, {"couple_encoder_decoder": True}):
        config = BigBirdPegasusConfig(**SMALL, **changes)
        for head in PEGASUS.heads if not config.couple_encoder_decoder else ("base", "conditional-generation"):
            for framework in ("torch", "flax", None):
                names = [row.name for row in weights_of(config, head, framework)]
                assert len(names) == len(set(names)) > 20, (changes, head)
    assert {find_head(own.class_name).name for own in PEGASUS.heads.values()} == set(PEGASUS.heads)
    assert len({family.name for family in families()}) == 2


def test_which_weights_a_source_may_hold_unread():
    config = BigBirdPegasusConfig(**SMALL)
    unread = [row.name for row in unread_of(config, "conditional-generation")]
    assert len(unread) == 2 * 4 + 2 * 8 + 1
    assert "final_logits_bias" in unread
    assert [row.name for row in unread_of(config.replace(use_bias=True), "base")] == []
