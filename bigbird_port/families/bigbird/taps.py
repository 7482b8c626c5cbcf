"""BigBird's taps: the schema's twin. What can be compared in a model, in the order in which it is computed.

Axes: batch, length (of the texts), hidden, inner, heads and size (attention heads and their size).
"""

from __future__ import annotations

from dataclasses import replace

from bigbird_port.families.family import Stage, Tap

_HIDDEN = "batch length hidden"
_SPLIT = "batch heads length size"

EMBEDDINGS = (
    Tap("embeddings_prenorm", _HIDDEN, "embeddings", golden="hidden.embeddings_prenorm"),
    Tap(
        "embeddings",
        _HIDDEN,
        "embeddings.LayerNorm",
        ("embeddings_prenorm",),
        torch="embeddings",
        flax="embeddings/LayerNorm",
        golden="hidden.embeddings",
    ),
)


def _of_layer(name: str, axes: str, module: str, *sources: str, torch: str = "", flax: str = "") -> Tap:
    return Tap(
        f"layer.{{i}}.{name}",
        axes,
        f"encoder.layer.{{i}}.{module}",
        tuple(f"layer.{{i}}.{source}" for source in sources),
        kind=name,
        torch=torch or module,
        flax=flax or module.replace(".", "/"),
        golden=f"hidden.layer_{{i}}.{name}",
    )


LAYERS = (
    replace(_of_layer("query", _SPLIT, "attention.self.query"), terms=("value",), rows=("context",)),
    replace(_of_layer("key", _SPLIT, "attention.self.key"), terms=("value",), rows=("value",)),
    _of_layer("value", _SPLIT, "attention.self.value"),
    replace(
        _of_layer("context", "batch length heads size", "attention.self", "query", "key", "value"),
        torch="<attention.output",  # transformers exchanges the module that attends
        by_head=True,
    ),
    _of_layer("attention_output", _HIDDEN, "attention.output", "context"),
    _of_layer("intermediate", "batch length inner", "intermediate", "attention_output"),
    replace(_of_layer("output", _HIDDEN, "output", "intermediate", "attention_output"), golden="hidden.layer_{i}"),
)


# The output of the last layer, or in prenorm of the LayerNorm behind it, which is a stage of its own.
SEQUENCE = Tap(
    *("sequence_output", _HIDDEN, "encoder"),
    kind="output",
    flax="encoder/LayerNorm",
    golden="sequence_output",
)
_CROSS = tuple(
    replace(tap, name=tap.name.replace("{i}.", "{i}.cross_"), torch="", flax="", golden="") for tap in LAYERS[:5]
)  # of a decoder that attends to an encoder
# What is not computed stage by stage: what a call of the base model returns, and what the original reports.
WHOLE = (
    *_CROSS,
    Tap("last_hidden_state", _HIDDEN, "encoder", kind="output"),
    SEQUENCE,
    Tap(
        "rand_attn.{i}",
        "heads blocks random",
        "encoder.layer.{i}.attention.self",
        kind="rand_attn",
        golden="rand_attn.layer_{i}",
        exact="block numbers are drawn as integers by one rule: they are equal or wrong",
    ),
    Tap("ids", "batch length", "", exact="tokens are integers: they are equal or wrong"),
    Tap("loss", "", "", kind="loss"),
)

POOLED = Tap("pooler_output", "batch hidden", "pooler", golden="pooled_output")
TRANSFORM = Tap(
    *("transform", _HIDDEN, "cls.predictions.transform"),
    torch="cls.predictions.transform",
    flax="predictions/transform",
)
SPAN = Tap("span_logits", "batch length sides", "qa_classifier", flax="qa_classifier")

STAGES = (
    Stage("embeddings", EMBEDDINGS, "embeddings"),
    Stage("layer.{i}", LAYERS, "layer.{i}.output", count="num_hidden_layers"),
    Stage("output", (SEQUENCE,), "sequence_output", when=("norm_type", "prenorm")),
    Stage("head"),
)
