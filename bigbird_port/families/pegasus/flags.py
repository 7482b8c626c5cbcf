"""The summarization.config that stands beside a TensorFlow checkpoint: config.py's reading, reversed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bigbird_port.families.flags import act_flag, act_sentences, length_sentences, longest_length
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig

# Fields that the original has as flags, and what they are called there (bigbird/core/flags.py, run_summarization.py).
EXPRESSED = {field: flag for flag, field in BigBirdPegasusConfig.flag_names.items()} | {
    name: name
    for name in (
        *("vocab_size", "max_position_embeddings", "attention_type", "block_size", "use_bias", "norm_type"),
        *("couple_encoder_decoder", "max_decoder_length", "label_smoothing"),
    )
}
# All other fields, and what the original does whatever they say.
UNEXPRESSED = {
    "layer_norm_eps": "it always uses 1e-12",
    "activation_dropout": "nothing is dropped behind the activation",
    "classifier_dropout": "it has no classifier for this model",
    "use_cache": "it always decodes with its cache",
    "is_encoder_decoder": "its model always is one",
    "pad_token_id": "id 0 is always the padding",
    "bos_token_id": "it is not used",
    "eos_token_id": "id 1 always ends a summary",
    "decoder_start_token_id": "id 2 always starts a summary",
    "random_blocks": "it always draws its own plan",
    "loss_style": "it always computes its own loss",
    "problem_type": "it has no classifier for this model",
    "num_labels": "it has no classifier for this model",
}
_KEPT_ELSEWHERE = {"encoder_layerdrop", "decoder_layerdrop", "decoder_attention_heads", "decoder_ffn_dim"}


def scope(config: BigBirdPegasusConfig) -> str:
    """The scope that the released models of this kind have."""
    return "bert" if config.couple_encoder_decoder else "pegasus"


def flags_json(config: BigBirdPegasusConfig, vocab_model_file: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """Return the flags under which the original code runs a model of ``config``, and what they could not express.

    vocab_model_file, and the second value: as BigBird's flags_json has them.
    """
    values = {flag: getattr(config, field) for field, flag in EXPRESSED.items()}
    values |= {
        "hidden_act": act_flag(config.activation_function),
        "max_encoder_length": config.max_encoder_length or longest_length(config),
        "max_decoder_length": config.decoder_length,
        "scope": scope(config),
        "substitute_newline": "<n>",
    }
    if config.decoder_layers == config.encoder_layers:
        del values["num_decoder_layers"]
    if vocab_model_file is not None:
        values["vocab_model_file"] = vocab_model_file
    return dict(sorted(values.items())), list(_sentences(config, values))


def _sentences(config: BigBirdPegasusConfig, values: dict[str, Any]) -> Iterator[str]:
    yield from act_sentences("activation_function", config.activation_function)
    yield from length_sentences(config, values["max_encoder_length"])
    if "num_decoder_layers" in values:
        yield (
            f"num_decoder_layers is {config.decoder_layers}: no flag of the original sets it, but its code reads it "
            "where a flag file has it, as this one does"
        )
    if config.decoder_ffn_dim != config.encoder_ffn_dim:
        yield (
            f"decoder_ffn_dim is {config.decoder_ffn_dim}, for which the original has no flag: it gives both sides "
            f"intermediate_size, {config.encoder_ffn_dim}, and will refuse these variables"
        )
    default = BigBirdPegasusConfig()
    for field, instead in UNEXPRESSED.items():
        if (value := getattr(config, field)) != getattr(default, field):
            yield f"{field} is {value!r}, for which the original has no flag: {instead}"
    told = {*EXPRESSED, *UNEXPRESSED, *_KEPT_ELSEWHERE, "model_type", "architectures"}
    kept = [name for name in config.to_json_values("") if name not in told]
    if kept:
        yield f"{', '.join(kept)}: the original has no flags for them, so they are not carried into tf/"
    if "vocab_model_file" not in values and config.vocab_size != default.vocab_size:
        yield (
            f"vocab_size is {config.vocab_size}, but the original counts the pieces of its SentencePiece file: "
            "name one with as many by --vocab_model_file"
        )
