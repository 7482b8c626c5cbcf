"""The weight schema: one table that says what every weight is called and how it is laid out, everywhere.

Canonical names follow the modules; canonical layout is the original's (kernels are in x out), so that
Flax is mostly the identity and torch mostly a transpose. Torch and Flax names are transformers'.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.schema.layout import merged_shape

SCHEMA_VERSION = 1  # of names, axes and orientation; docs/schema.md
Framework = Literal["torch", "flax"]
ALL = frozenset(HEADS)
LM = frozenset({"pretraining", "masked-lm", "causal-lm"})
POOLED = frozenset({"base", "pretraining", "sequence-classification", "multiple-choice"})


@dataclass(frozen=True)
class Weight:
    """One row of the schema; "{i}" in a name stands for the layer, "{scope}" for the original's scope.

    name: canonical name. axes: canonical axes, which are the original's. original: its names in checkpoints,
    any one of which may occur. keras: how its names end in a SavedModel of the original's question answering, "{_i}"
    standing for nothing in layer 0 and for _1, _2, ... behind it, "{other}" for any part. torch, flax: state_dict
    name and parameter path in transformers, under the prefix ``bert`` where the base model is a part. torch_axes,
    flax_axes: their layouts. heads: who owns it. torch_unused_heads: heads whose torch class carries it without
    using it. tied: (torch name, heads) under which the same values appear once more. when: (config field, value)
    pairs without which the weight does not exist.
    fill: what stands in where a checkpoint lacks it: nothing ("required"), seeded initial values
    ("initialise"), or zeros if fill_when holds and nothing otherwise ("zeros").
    init: how initial values are drawn.
    """

    name: str
    axes: str
    original: tuple[str, ...]
    torch: str
    torch_axes: str
    flax: str
    flax_axes: str
    init: Literal["normal", "zeros", "ones"]
    heads: frozenset[str] = ALL
    torch_unused_heads: frozenset[str] = frozenset()
    tied: tuple[str, frozenset[str]] | None = None
    when: tuple[tuple[str, Any], ...] = ()
    fill: Literal["required", "initialise", "zeros"] = "required"
    fill_when: tuple[tuple[str, Any], ...] = ()
    keras: tuple[str, ...] = ()

    def owners(self, framework: Framework) -> frozenset[str]:
        """Heads whose class in ``framework`` has this weight."""
        return self.heads | self.torch_unused_heads if framework == "torch" else self.heads

    def exists(self, config: BigBirdConfig) -> bool:
        """Whether a model of this configuration has the weight."""
        return _holds(self.when, config)

    def fill_for(self, config: BigBirdConfig) -> Literal["required", "initialise", "zeros"]:
        """What stands in for the weight where a checkpoint of this configuration lacks it."""
        return self.fill if _holds(self.fill_when, config) else "required"

    def shape(self, config: BigBirdConfig) -> tuple[int, ...]:
        """Canonical shape."""
        return merged_shape(self.axes, dims(config))

    def in_layer(self, i: int) -> Weight:
        """The row with the layer's number in its names."""
        return _in_layer(self, i)


@functools.cache  # every command asks for all rows many times
def _in_layer(row: Weight, i: int) -> Weight:
    names = {field: getattr(row, field).replace("{i}", str(i)) for field in ("name", "torch", "flax")}
    original = tuple(name.replace("{i}", str(i)) for name in row.original)
    keras = tuple(name.replace("{_i}", f"_{i}" if i else "") for name in row.keras)
    return replace(row, original=original, keras=keras, **names)


def _holds(conditions: tuple[tuple[str, Any], ...], config: BigBirdConfig) -> bool:
    return all(getattr(config, field) == value for field, value in conditions)


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


def dims(config: BigBirdConfig) -> dict[str, int]:
    """Size of every axis that the schema names."""
    return {axis: size if isinstance(size, int) else getattr(config, size) for axis, size in AXES.items()}


def _embedding(module: str, axes: str, original: str, **rest: Any) -> tuple[Weight]:
    torch, flax = f"{module}.weight", f"{module.replace('.', '/')}/embedding"
    return (Weight(f"{module}.embedding", axes, (original,), torch, axes, flax, axes, "normal", **rest),)


def _leaves(modules: Sequence[str], leaf: str) -> tuple[str, ...]:
    return tuple(f"{module}/{leaf}" for module in modules)


def _layer_norm(module: str, *original: str, keras: Sequence[str] = (), **rest: Any) -> tuple[Weight, Weight]:
    flax = module.replace(".", "/")
    (gammas, betas), (k_gammas, k_betas) = (
        [_leaves(modules, leaf) for leaf in ("gamma", "beta")] for modules in (original, keras)
    )
    one = "hidden"
    return (
        Weight(
            f"{module}.gamma",
            one,
            gammas,
            f"{module}.weight",
            one,
            f"{flax}/scale",
            one,
            "ones",
            keras=k_gammas,
            **rest,
        ),
        Weight(
            f"{module}.beta", one, betas, f"{module}.bias", one, f"{flax}/bias", one, "zeros", keras=k_betas, **rest
        ),
    )


def _dense(
    module: str,
    axes_in: str,
    axes_out: str,
    *original: str,
    path: str | None = None,
    bias: Mapping[str, Any] | None = None,
    keras: Sequence[str] = (),
    **rest: Any,
) -> tuple[Weight, Weight]:
    """Kernel and bias of a dense layer; ``path`` is the frameworks' module where it is not the canonical one."""
    path = path or module
    flax = path.replace(".", "/")
    in_out, out_in = f"{axes_in} {axes_out}", f"{axes_out} {axes_in}"
    kernels, biases = (_leaves(original, leaf) for leaf in ("kernel", "bias"))
    kernel_row = Weight(
        f"{module}.kernel", in_out, kernels, f"{path}.weight", out_in, f"{flax}/kernel", in_out, "normal", **rest
    )
    bias_row = Weight(
        f"{module}.bias", axes_out, biases, f"{path}.bias", axes_out, f"{flax}/bias", axes_out, "zeros", **rest
    )
    bias_row = replace(bias_row, **(bias or {}))
    return replace(kernel_row, keras=_leaves(keras, "kernel")), replace(bias_row, keras=_leaves(keras, "bias"))


_LAYER = "encoder.layer.{i}"
_TF = "{scope}/encoder/layer_{i}"
_KERAS = "transformer_scaffold{_i}"
_KERAS_SELF = f"{_KERAS}/big_bird_attention"
_KERAS_HEAD = "trivia_qa_head"
_CROSS = f"{_LAYER}.crossattention"
# The original's eight-head checkpoints have no cross-attention; a decoder that has it starts from initial values.
_DECODER: dict[str, Any] = {"when": (("add_cross_attention", True),), "fill": "initialise"}
_USE_BIAS_IN_DECODER: dict[str, Any] = {"when": (("add_cross_attention", True), ("use_bias", True))}
_USE_BIAS: dict[str, Any] = {"when": (("use_bias", True),)}
# Without use_bias the original has no bias here either, transformers always does.
_ZERO_BIAS: dict[str, Any] = {"fill": "zeros", "fill_when": (("use_bias", False),)}
_MLM: dict[str, Any] = {"heads": LM, "fill": "initialise"}
_NSP: dict[str, Any] = {"heads": frozenset({"pretraining"}), "fill": "initialise"}
_QA: dict[str, Any] = {"heads": frozenset({"qa"}), "fill": "initialise"}
_SEQUENCE: dict[str, Any] = {"heads": frozenset({"sequence-classification"}), "fill": "initialise"}

SCHEMA: tuple[Weight, ...] = (
    # embeddings
    *_embedding(
        "embeddings.word_embeddings",
        "vocab hidden",
        "{scope}/embeddings/word_embeddings",
        tied=("cls.predictions.decoder.weight", LM),
        keras=("word_embeddings/embeddings",),
    ),
    *_embedding(
        "embeddings.position_embeddings",
        "position hidden",
        "{scope}/embeddings/position_embeddings",
        keras=("position_embedding/embeddings",),
    ),
    *_embedding(
        "embeddings.token_type_embeddings",
        "type hidden",
        "{scope}/embeddings/token_type_embeddings",
        keras=("type_embeddings/embeddings",),
    ),
    *_layer_norm("embeddings.LayerNorm", "{scope}/encoder/LayerNorm", keras=("embeddings/layer_norm",)),
    # encoder
    *_dense(
        f"{_LAYER}.attention.self.query",
        "hidden",
        "(heads head_dim)",
        f"{_TF}/attention/self/query",
        bias=_USE_BIAS,
        keras=(f"{_KERAS_SELF}/query",),
    ),
    *_dense(
        f"{_LAYER}.attention.self.key",
        "hidden",
        "(heads head_dim)",
        f"{_TF}/attention/self/key",
        bias=_USE_BIAS,
        keras=(f"{_KERAS_SELF}/key",),
    ),
    *_dense(
        f"{_LAYER}.attention.self.value",
        "hidden",
        "(heads head_dim)",
        f"{_TF}/attention/self/value",
        bias=_USE_BIAS,
        keras=(f"{_KERAS_SELF}/value",),
    ),
    *_dense(
        f"{_LAYER}.attention.output.dense",
        "(heads head_dim)",
        "hidden",
        f"{_TF}/attention/output/dense",
        bias=_ZERO_BIAS,
        keras=(f"{_KERAS_SELF}/attention_output", f"{_KERAS}/attention_output"),
    ),
    *_layer_norm(
        f"{_LAYER}.attention.output.LayerNorm",
        f"{_TF}/attention/output/LayerNorm",
        keras=(f"{_KERAS}/self_attention_layer_norm",),
    ),
    *_dense(f"{_CROSS}.self.query", "hidden", "(heads head_dim)", **_DECODER, bias=_USE_BIAS_IN_DECODER),
    *_dense(f"{_CROSS}.self.key", "hidden", "(heads head_dim)", **_DECODER, bias=_USE_BIAS_IN_DECODER),
    *_dense(f"{_CROSS}.self.value", "hidden", "(heads head_dim)", **_DECODER, bias=_USE_BIAS_IN_DECODER),
    *_dense(f"{_CROSS}.output.dense", "(heads head_dim)", "hidden", **_DECODER),
    *_layer_norm(f"{_CROSS}.output.LayerNorm", **_DECODER),
    *_dense(
        f"{_LAYER}.intermediate.dense",
        "hidden",
        "inner",
        f"{_TF}/intermediate/dense",
        keras=(f"{_KERAS}/intermediate",),
    ),
    *_dense(f"{_LAYER}.output.dense", "inner", "hidden", f"{_TF}/output/dense", keras=(f"{_KERAS}/output",)),
    *_layer_norm(f"{_LAYER}.output.LayerNorm", f"{_TF}/output/LayerNorm", keras=(f"{_KERAS}/output_layer_norm",)),
    # pooler
    *_dense(
        "pooler",
        "hidden",
        "out",
        "{scope}/pooler/dense",
        heads=POOLED,
        torch_unused_heads=frozenset({"masked-lm", "causal-lm", "token-classification"}),
        fill="initialise",
        keras=("pooler", "pooler/dense"),
    ),
    # masked and causal language modelling
    *_dense(
        "cls.predictions.transform.dense",
        "hidden",
        "out",
        "transform",
        "cls/predictions/transform/dense",
        **_MLM,
    ),
    *_layer_norm("cls.predictions.transform.LayerNorm", "transform", "cls/predictions/transform/LayerNorm", **_MLM),
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
    *_dense(
        "sequence.classifier",
        "hidden",
        "label",
        "{scope}/classifier",
        path="classifier",
        when=(("classifier_style", "original"),),
        bias={"when": (("classifier_style", "original"),)},
        **_SEQUENCE,
    ),
    *_dense("classifier.dense", "hidden", "out", when=(("classifier_style", "transformers"),), **_SEQUENCE),
    *_dense("classifier.out_proj", "hidden", "label", when=(("classifier_style", "transformers"),), **_SEQUENCE),
    # multiple choice, token classification, question answering: transformers' heads
    *_dense(
        "choice.classifier",
        "hidden",
        "choice",
        path="classifier",
        heads=frozenset({"multiple-choice"}),
        fill="initialise",
    ),
    *_dense(
        "token.classifier",
        "hidden",
        "label",
        path="classifier",
        heads=frozenset({"token-classification"}),
        fill="initialise",
    ),
    *_dense("qa_classifier.intermediate.dense", "hidden", "inner", keras=(f"{_KERAS_HEAD}/dense",), **_QA),
    *_dense("qa_classifier.output.dense", "inner", "hidden", keras=(f"{_KERAS_HEAD}/{{other}}",), **_QA),
    *_layer_norm("qa_classifier.output.LayerNorm", keras=(f"{_KERAS_HEAD}/layer_normalization",), **_QA),
    *_dense("qa_classifier.qa_outputs", "hidden", "span", keras=(f"{_KERAS_HEAD}/dense_1",), **_QA),
)

# Rows of a task head stand beside the base model; all others are in it, under the prefix "bert".
_BESIDE_BASE = ("cls.", "classifier", "qa_classifier")


def weights_of(config: BigBirdConfig, head: str | None = None, framework: Framework | None = None) -> Iterator[Weight]:
    """Yield the rows of one head (None: of all), layers numbered.

    With ``framework`` the rows that its class has, torch and flax names prefixed as in that class;
    without, the rows that the head's function uses, names without prefix.
    """
    for row in SCHEMA:
        owners = row.owners(framework) if framework else row.heads
        if not row.exists(config) or (head is not None and head not in owners):
            continue
        layers = range(config.num_hidden_layers) if "{i}" in row.name else (None,)
        for i in layers:
            numbered = row if i is None else row.in_layer(i)
            yield _prefixed(numbered, head) if framework and head else numbered


def _prefixed(row: Weight, head: str) -> Weight:
    if head == "base" or row.torch.startswith(_BESIDE_BASE):
        return row
    return replace(row, torch=f"bert.{row.torch}", flax=f"bert/{row.flax}")


def schema_records(head: str | None = None) -> list[dict[str, Any]]:
    """Return the schema as JSON values, "{i}" standing for the layer; with ``head`` only the rows it owns."""
    records = []
    for row in SCHEMA:
        if head is None or head in row.owners("torch"):
            record = asdict(row)
            record["heads"] = [name for name in HEADS if name in row.heads]
            record["torch_unused_heads"] = [name for name in HEADS if name in row.torch_unused_heads]
            record["tied"] = None if row.tied is None else {"torch": row.tied[0], "heads": sorted(row.tied[1])}
            records.append(record)
    return records
