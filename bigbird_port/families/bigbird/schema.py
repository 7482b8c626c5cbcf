"""BigBird's weights: one table that says what every weight is called and how it is laid out, everywhere.

Canonical names follow the modules; canonical layout is the original's (kernels are in x out), so that
Flax is mostly the identity and torch mostly a transpose. Torch and Flax names are transformers'.
"""

from __future__ import annotations

from typing import Any

from bigbird_port.families.rows import dense, embedding, layer_norm
from bigbird_port.schema.table import Weight

# Heads that share rows. A row that names no heads is every head's.
LM = frozenset({"pretraining", "masked-lm", "causal-lm"})
POOLED = frozenset({"base", "pretraining", "sequence-classification", "multiple-choice"})

# Size of every axis: a field of the configuration, or a number.
AXES: dict[str, str | int] = {
    "vocab": "vocab_size",
    "position": "max_position_embeddings",
    "type": "type_vocab_size",
    "hidden": "hidden_size",
    "out": "hidden_size",
    "heads": "num_attention_heads",
    "head_dim": "head_dim",
    "inner": "intermediate_size",
    "label": "num_labels",
    "next": 2,
    "choice": 1,
    "span": 2,
}


_LAYER = "encoder.layer.{i}"
_TF = "{scope}/encoder/layer_{i}"
_KERAS = "transformer_scaffold{_i}"
_KERAS_SELF = f"{_KERAS}/big_bird_attention"
_KERAS_HEAD = "trivia_qa_head"
_CROSS = f"{_LAYER}.crossattention"
# The original's eight-head checkpoints have no cross-attention; a decoder that has it starts from initial values.
_DECODER: dict[str, Any] = {"when": (("add_cross_attention", True),), "fill": "initialise"}
_USE_BIAS_IN_DECODER: dict[str, Any] = {"when": (("add_cross_attention", True), ("use_bias", True))}
_POSTNORM: dict[str, Any] = {"when": (("norm_type", "postnorm"),)}
_PRENORM: dict[str, Any] = {"when": (("norm_type", "prenorm"),)}
_USE_BIAS: dict[str, Any] = {"when": (("use_bias", True),)}
# Without use_bias the original has no bias here either, transformers always does.
_ZERO_BIAS: dict[str, Any] = {"fill": "zeros", "fill_when": (("use_bias", False),)}
_MLM: dict[str, Any] = {"heads": LM, "fill": "initialise"}
_WITHOUT_NSP = ("pretraining", "use_nsp", False)  # the loss is that of masked words alone
_NSP: dict[str, Any] = {"heads": frozenset({"pretraining"}), "fill": "initialise", "still": _WITHOUT_NSP}
_QA: dict[str, Any] = {"heads": frozenset({"qa"}), "fill": "initialise"}
_SEQUENCE: dict[str, Any] = {"heads": frozenset({"sequence-classification"}), "fill": "initialise"}

ROWS: tuple[Weight, ...] = (
    # embeddings
    *embedding(
        "embeddings.word_embeddings",
        "vocab hidden",
        "{scope}/embeddings/word_embeddings",
        tied=("cls.predictions.decoder.weight", LM),
        keras=("word_embeddings/embeddings",),
    ),
    *embedding(
        "embeddings.position_embeddings",
        "position hidden",
        "{scope}/embeddings/position_embeddings",
        keras=("position_embedding/embeddings",),
    ),
    *embedding(
        "embeddings.token_type_embeddings",
        "type hidden",
        "{scope}/embeddings/token_type_embeddings",
        keras=("type_embeddings/embeddings",),
    ),
    *layer_norm("embeddings.LayerNorm", "{scope}/encoder/LayerNorm", keras=("embeddings/layer_norm",), **_POSTNORM),
    # encoder; one name in the original is the first LayerNorm in postnorm, and the last in prenorm
    *layer_norm("encoder.LayerNorm", "{scope}/encoder/LayerNorm", **_PRENORM),
    *layer_norm(f"{_LAYER}.attention.self.LayerNorm", f"{_TF}/attention/self/LayerNorm", **_PRENORM),
    *dense(
        f"{_LAYER}.attention.self.query",
        "hidden",
        "(heads head_dim)",
        f"{_TF}/attention/self/query",
        bias=_USE_BIAS,
        keras=(f"{_KERAS_SELF}/query",),
    ),
    *dense(
        f"{_LAYER}.attention.self.key",
        "hidden",
        "(heads head_dim)",
        f"{_TF}/attention/self/key",
        bias=_USE_BIAS | {"idle": True},  # it moves all scores of a query alike, and no softmax
        keras=(f"{_KERAS_SELF}/key",),
    ),
    *dense(
        f"{_LAYER}.attention.self.value",
        "hidden",
        "(heads head_dim)",
        f"{_TF}/attention/self/value",
        bias=_USE_BIAS,
        keras=(f"{_KERAS_SELF}/value",),
    ),
    *dense(
        f"{_LAYER}.attention.output.dense",
        "(heads head_dim)",
        "hidden",
        f"{_TF}/attention/output/dense",
        bias=_ZERO_BIAS,
        keras=(f"{_KERAS_SELF}/attention_output", f"{_KERAS}/attention_output"),
    ),
    *layer_norm(
        f"{_LAYER}.attention.output.LayerNorm",
        f"{_TF}/attention/output/LayerNorm",
        keras=(f"{_KERAS}/self_attention_layer_norm",),
        **_POSTNORM,
    ),
    *dense(f"{_CROSS}.self.query", "hidden", "(heads head_dim)", **_DECODER, bias=_USE_BIAS_IN_DECODER),
    *dense(f"{_CROSS}.self.key", "hidden", "(heads head_dim)", **_DECODER, bias=_USE_BIAS_IN_DECODER),
    *dense(f"{_CROSS}.self.value", "hidden", "(heads head_dim)", **_DECODER, bias=_USE_BIAS_IN_DECODER),
    *dense(f"{_CROSS}.output.dense", "(heads head_dim)", "hidden", **_DECODER),
    *layer_norm(f"{_CROSS}.output.LayerNorm", **_DECODER),
    *layer_norm(f"{_LAYER}.intermediate.LayerNorm", f"{_TF}/intermediate/LayerNorm", **_PRENORM),
    *dense(
        f"{_LAYER}.intermediate.dense",
        "hidden",
        "inner",
        f"{_TF}/intermediate/dense",
        keras=(f"{_KERAS}/intermediate",),
    ),
    *dense(f"{_LAYER}.output.dense", "inner", "hidden", f"{_TF}/output/dense", keras=(f"{_KERAS}/output",)),
    *layer_norm(
        f"{_LAYER}.output.LayerNorm", f"{_TF}/output/LayerNorm", keras=(f"{_KERAS}/output_layer_norm",), **_POSTNORM
    ),
    # pooler
    *dense(
        "pooler",
        "hidden",
        "out",
        "{scope}/pooler/dense",
        heads=POOLED,
        torch_unused_heads=frozenset({"masked-lm", "causal-lm", "token-classification"}),
        fill="initialise",
        keras=("pooler", "pooler/dense"),
        still=_WITHOUT_NSP,
    ),
    # masked and causal language modelling
    *dense(
        "cls.predictions.transform.dense",
        "hidden",
        "out",
        "transform",
        "cls/predictions/transform/dense",
        **_MLM,
    ),
    *layer_norm("cls.predictions.transform.LayerNorm", "transform", "cls/predictions/transform/LayerNorm", **_MLM),
    Weight(
        "cls.predictions.bias",
        "vocab",
        ("cls/predictions/output_bias",),
        "cls.predictions.bias",
        "vocab",
        "cls/predictions/bias",
        "vocab",
        "zeros",
        tied=("cls.predictions.decoder.bias", LM),
        **_MLM,
    ),
    # next sentence: the original stores out x in
    Weight(
        "cls.seq_relationship.kernel",
        "next hidden",
        ("cls/seq_relationship/output_weights",),
        "cls.seq_relationship.weight",
        "next hidden",
        "cls/seq_relationship/kernel",
        "hidden next",
        "normal",
        **_NSP,
    ),
    Weight(
        "cls.seq_relationship.bias",
        "next",
        ("cls/seq_relationship/output_bias",),
        "cls.seq_relationship.bias",
        "next",
        "cls/seq_relationship/bias",
        "next",
        "zeros",
        **_NSP,
    ),
    # sequence classification: the original's head, or transformers'
    *dense(
        "sequence.classifier",
        "hidden",
        "label",
        "{scope}/classifier",
        path="classifier",
        when=(("classifier_style", "original"),),
        bias={"when": (("classifier_style", "original"),)},
        **_SEQUENCE,
    ),
    *dense("classifier.dense", "hidden", "out", when=(("classifier_style", "transformers"),), **_SEQUENCE),
    *dense("classifier.out_proj", "hidden", "label", when=(("classifier_style", "transformers"),), **_SEQUENCE),
    # multiple choice, token classification, question answering: transformers' heads
    *dense(
        "choice.classifier",
        "hidden",
        "choice",
        path="classifier",
        heads=frozenset({"multiple-choice"}),
        fill="initialise",
    ),
    *dense(
        "token.classifier",
        "hidden",
        "label",
        path="classifier",
        heads=frozenset({"token-classification"}),
        fill="initialise",
    ),
    *dense("qa_classifier.intermediate.dense", "hidden", "inner", keras=(f"{_KERAS_HEAD}/dense",), **_QA),
    *dense("qa_classifier.output.dense", "inner", "hidden", keras=(f"{_KERAS_HEAD}/{{other}}",), **_QA),
    *layer_norm("qa_classifier.output.LayerNorm", keras=(f"{_KERAS_HEAD}/layer_normalization",), **_QA),
    *dense("qa_classifier.qa_outputs", "hidden", "span", keras=(f"{_KERAS_HEAD}/dense_1",), **_QA),
)
