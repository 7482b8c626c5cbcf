"""BigBird-Pegasus' weights: what every one is called and how it is laid out, everywhere.

Canonical names follow the original's variables, torch names are transformers', and Flax names follow torch's. One name
may have several rows, of which one configuration or head has one: a LayerNorm is called otherwise in each norm_type,
and the tables stand elsewhere where there is no encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bigbird_port.families.rows import dense, embedding, layer_norm
from bigbird_port.schema.table import Weight

# Heads that share rows. A row that names no heads is every head's.
WITH_ENCODER = frozenset({"base", "conditional-generation", "sequence-classification", "qa"})
DECODER_ALONE = frozenset({"causal-lm"})
LM = frozenset({"conditional-generation", "causal-lm"})

# Size of every axis: a field of the configuration, or a number.
AXES: dict[str, str | int] = {
    "vocab": "vocab_size",
    "position": "max_position_embeddings",
    "hidden": "d_model",
    "out": "d_model",
    "heads": "encoder_attention_heads",
    "head_dim": "head_dim",
    "inner": "encoder_ffn_dim",
    "decoder_inner": "decoder_ffn_dim",
    "label": "num_labels",
    "span": 2,
    "one": 1,
}
_PROJECTED = "(heads head_dim)"
_WORDS, _POSITIONS = "embeddings.word_embeddings", "embeddings.position_embeddings"
_TF_WORDS, _TF_POSITIONS = (f"{{scope}}/embeddings/{name}" for name in ("word_embeddings", "position_embeddings"))
_APART, _COUPLED = ("couple_encoder_decoder", False), ("couple_encoder_decoder", True)
_PRENORM, _POSTNORM = ("norm_type", "prenorm"), ("norm_type", "postnorm")
_WITHOUT_BIAS = ("conditional-generation", "use_bias", False)  # the original's scripts leave the positions as they are
_SEQUENCE: dict[str, Any] = {"heads": frozenset({"sequence-classification"}), "fill": "initialise"}
_QA: dict[str, Any] = {"heads": frozenset({"qa"}), "fill": "initialise"}


def _norms(module: str, path: str, before: str, after: str, *when: Any, **rest: Any) -> Iterator[Weight]:
    """A sublayer's LayerNorm; before, after: what the original calls it in prenorm, and in postnorm."""
    for norm_type, original in ((_PRENORM, before), (_POSTNORM, after)):
        yield from layer_norm(module, original, path=path, when=(norm_type, *when), **rest)


def _attention(
    canonical: str, original: str, path: str, projections: tuple[str, ...], *when: Any, **rest: Any
) -> Iterator[Weight]:
    """Queries, keys, values and the output of one attention.

    canonical, original, path: where they stand in each kind of names. projections: of query, key, value, output.
    """
    bias = {"when": (*when, ("use_bias", True)), "zero_without": "use_bias"}
    own, output = ("self", "output") if canonical.endswith("self") else ("encdec", "encdec_output")
    for name, projection in zip(("query", "key", "value"), projections, strict=False):
        yield from dense(
            *(f"{canonical}.{name}", "hidden", _PROJECTED, f"{original}/attention/{own}/{name}"),
            **{"path": f"{path}.{projection}", "when": when, "bias": bias, **rest},
        )
    yield from dense(
        *(f"{canonical.rpartition('.')[0]}.{output}.dense", _PROJECTED, "hidden"),
        *(f"{original}/attention/{output}/dense",),
        **{"path": f"{path}.{projections[3]}", "when": when, "bias": bias, **rest},
    )


def _side(side: str, inner: str, self_path: str, projections: tuple[str, ...], *when: Any, **rest: Any) -> Any:
    """The rows that a layer of either side has, and the stack's own LayerNorm."""
    name, tf, path = f"{side}.layer.{{i}}", f"{{scope}}/{side}/layer_{{i}}", f"{side}.layers.{{i}}"
    yield from _attention(f"{name}.attention.self", tf, f"{path}.{self_path}", projections, *when, **rest)
    yield from _norms(
        *(f"{name}.attention.LayerNorm", f"{path}.self_attn_layer_norm"),
        *(f"{tf}/attention/self/LayerNorm", f"{tf}/attention/output/LayerNorm", *when),
        **rest,
    )
    for module, sizes, own in (
        ("intermediate", ("hidden", inner), "fc1"),
        ("output", (inner, "hidden"), "fc2"),
    ):
        original = f"{tf}/{module}/dense"
        yield from dense(f"{name}.{module}.dense", *sizes, original, path=f"{path}.{own}", when=when, **rest)
    yield from _norms(
        *(f"{name}.LayerNorm", f"{path}.final_layer_norm"),
        *(f"{tf}/intermediate/LayerNorm", f"{tf}/output/LayerNorm", *when),
        **rest,
    )
    yield from layer_norm(
        f"{side}.LayerNorm", f"{{scope}}/{side}/LayerNorm", path=f"{side}.layernorm_embedding", when=when, **rest
    )


def _cross(side: str, coupled: Any) -> Iterator[Weight]:
    """Cross-attention, whose variables stand on the side whose layers it is added to."""
    name, tf, path = "decoder.layer.{i}", f"{{scope}}/{side}/layer_{{i}}", "decoder.layers.{i}"
    projections = ("q_proj", "k_proj", "v_proj", "out_proj")
    rest = {"layers": "decoder_layers", "fill": "initialise" if coupled == _COUPLED else "required"}
    yield from _attention(f"{name}.attention.encdec", tf, f"{path}.encoder_attn", projections, coupled, **rest)
    yield from _norms(
        *(f"{name}.attention.encdec.LayerNorm", f"{path}.encoder_attn_layer_norm"),
        *(f"{tf}/attention/encdec/LayerNorm", f"{tf}/attention/encdec_output/LayerNorm", coupled),
        **rest,
    )


_ENCODER: dict[str, Any] = {"heads": WITH_ENCODER, "layers": "encoder_layers"}
_DECODER: dict[str, Any] = {"layers": "decoder_layers"}

ROWS: tuple[Weight, ...] = (
    *embedding(
        *(_WORDS, "vocab hidden", _TF_WORDS),
        path="shared",
        heads=WITH_ENCODER,
        tied=("lm_head.weight", LM),
        repeats=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    ),
    *embedding(
        *(_POSITIONS, "position hidden", _TF_POSITIONS),
        path="encoder.embed_positions",
        flax="embed_positions",
        heads=WITH_ENCODER,
        copies=("decoder.embed_positions.weight",),
        still=_WITHOUT_BIAS,
    ),
    *embedding(
        *(_WORDS, "vocab hidden", _TF_WORDS),
        path="model.decoder.embed_tokens",
        flax="model.shared",
        heads=DECODER_ALONE,
        tied=("lm_head.weight", LM),
    ),
    *embedding(
        *(_POSITIONS, "position hidden", _TF_POSITIONS),
        path="model.decoder.embed_positions",
        flax="model.embed_positions",
        heads=DECODER_ALONE,
    ),
    *_side("encoder", "inner", "self_attn", ("self.query", "self.key", "self.value", "output"), **_ENCODER),
    *_side("decoder", "decoder_inner", "self_attn", ("q_proj", "k_proj", "v_proj", "out_proj"), _APART, **_DECODER),
    *_cross("decoder", _APART),
    *_cross("encoder", _COUPLED),
    *dense("classification_head.dense", "hidden", "out", **_SEQUENCE),
    *dense("classification_head.out_proj", "hidden", "label", **_SEQUENCE),
    *dense("qa_outputs", "hidden", "span", **_QA),
    # transformers' class has it, all zeros, and nobody trains it
    Weight(
        *("final_logits_bias", "one vocab", (), "final_logits_bias", "one vocab", "final_logits_bias", "one vocab"),
        "zeros",
        heads=frozenset({"conditional-generation"}),
        when=(("has_logits_bias", True),),
        zero_without="has_logits_bias",
    ),
)
