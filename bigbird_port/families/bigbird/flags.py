"""The flags JSON that stands beside a TensorFlow checkpoint, for the original code: config.py's reading, reversed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.flags import act_flag, act_sentences, length_sentences, longest_length

# Fields that the original has as flags, and what they are called there (bigbird/core/flags.py, as_dictionary).
EXPRESSED = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "hidden_dropout_prob": "hidden_dropout_prob",
    "attention_probs_dropout_prob": "attention_probs_dropout_prob",
    "max_position_embeddings": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "initializer_range": "initializer_range",
    "attention_type": "attention_type",
    "use_bias": "use_bias",
    "rescale_embeddings": "rescale_embedding",
    "block_size": "block_size",
    "num_random_blocks": "num_rand_blocks",
    "num_labels": "num_labels",
    "max_encoder_length": "max_encoder_length",
    "norm_type": "norm_type",
}
# All other fields, and what the original does whatever they say.
UNEXPRESSED = {
    "layer_norm_eps": "it always uses 1e-12",
    "is_decoder": "its encoder always attends to both sides",
    "add_cross_attention": "its encoder has no cross-attention",
    "use_cache": "its encoder keeps no cache",
    "pad_token_id": "id 0 is always the padding",
    "bos_token_id": "the id is that of its vocabulary",
    "eos_token_id": "the id is that of its vocabulary",
    "sep_token_id": "the id is that of its vocabulary",
    "classifier_dropout": "its classifier uses hidden_dropout_prob",
    "problem_type": "its classifier is always trained on one label a text",
    "random_blocks": "it always draws its own plan",
    "classifier_style": "the names of the variables tell the style",
}
# Fields that change nothing that is computed, and have no flag: what is in them is said where it is anything.
KEPT_ELSEWHERE = (
    "is_encoder_decoder",
    "output_hidden_states",
    "output_attentions",
    "return_dict",
    "id2label",
    "label2id",
    "extra",
)


def flags_json(config: BigBirdConfig, vocab_model_file: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """Return the flags under which the original code runs a model of ``config``, and what they could not express.

    vocab_model_file: SentencePiece file to name; without it the original takes its own, "gpt2". The second value is a
    sentence for each setting that the original cannot have, or does not need to be told, with what it does instead.

    max_encoder_length None (the pattern follows each batch) has no counterpart, as the original pads all inputs to one
    length and has the pattern of that: the longest length that it can run is written, so that no input is refused.
    """
    values = {flag: getattr(config, field) for field, flag in EXPRESSED.items()}
    values |= {
        "hidden_act": act_flag(config.hidden_act),
        "max_encoder_length": config.max_encoder_length or longest_length(config),
        "scope": "bert",
    }
    if vocab_model_file is not None:
        values["vocab_model_file"] = vocab_model_file
    return dict(sorted(values.items())), list(_sentences(config, values))


def _sentences(config: BigBirdConfig, values: dict[str, Any]) -> Iterator[str]:
    yield from act_sentences("hidden_act", config.hidden_act)
    yield from length_sentences(config, values["max_encoder_length"])
    default = BigBirdConfig()
    for field, instead in UNEXPRESSED.items():
        if (value := getattr(config, field)) != getattr(default, field):
            yield f"{field} is {value!r}, for which the original has no flag: {instead}"
    told = {*EXPRESSED, *UNEXPRESSED, "model_type", "architectures"}
    kept = [name for name in config.to_json_values("") if name not in told]
    if kept:
        yield f"{', '.join(kept)}: the original has no flags for them, so they are not carried into tf/"
    if "vocab_model_file" not in values and config.vocab_size != default.vocab_size:
        yield (
            f"vocab_size is {config.vocab_size}, but the original counts the pieces of its SentencePiece file: "
            "name one with as many by --vocab_model_file"
        )
