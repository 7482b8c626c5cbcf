"""BigBird-Pegasus' taps: what can be compared in a model, in the order in which it is computed.

Axes: batch, length (of the texts), summary (tokens of the decoder), hidden, inner, heads and size (attention heads and
their size).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bigbird_port.families.family import Stage, Tap

_HIDDEN = {"encoder": "batch length hidden", "decoder": "batch summary hidden"}


def _of_layer(side: str, own: str, kind: str, axes: str, sources: Sequence[str], module: str) -> Tap:
    """One tap of a layer."""
    name = f"{side}.layer.{{i}}"
    return Tap(
        f"{name}.{own}",
        axes,
        f"{name}.{module}",
        tuple(f"{name}.{source}" for source in sources),
        kind=kind,
        by_head=kind == "context",
        when=("norm_type", "prenorm") if kind == "layer_norm" else None,
        golden=f"{side}.layer_{{i}}" if own == "output" else f"{side}.layer_{{i}}.{own}",
    )


def _attention(side: str, before: str, residual: str, keyed: str, modules: tuple[str, str, str]) -> tuple[Tap, ...]:
    """The taps of one attention.

    before: what stands before their names. residual: the tap that the sublayer adds to; empty: what goes into the
    layer. keyed: the axis of the keys' positions. modules: of the LayerNorm, of the attention and of its output.
    """
    hidden, length = _HIDDEN[side], _HIDDEN[side].split()[1]
    norm, attention, output = modules
    added = f"{before or 'attention_'}dense"
    first, start = f"{before or 'self_'}layer_norm", (residual,) if residual else ()
    parts = [f"{before}{part}" for part in ("query", "key", "value", "context")]
    query, key, value = (
        _of_layer(
            *(side, part, part.removeprefix(before), f"batch heads {axis} size"),
            *((first,) if axis == length else (), f"{attention}.{part.removeprefix(before)}"),
        )
        for part, axis in zip(parts, (length, keyed, keyed), strict=False)
    )
    return (
        _of_layer(side, first, "layer_norm", hidden, start, norm),
        replace(query, terms=(parts[2],), rows=(parts[3],)),
        replace(key, terms=(parts[2],), rows=(parts[2],)),
        value,
        _of_layer(side, parts[3], "context", f"batch {length} heads size", parts[:3], attention),
        _of_layer(side, added, "attention_dense", hidden, (parts[3],), output),
        _of_layer(side, f"{before or 'attention_'}output", "attention_output", hidden, (added, *start), output),
    )


def _layer(side: str) -> tuple[Tap, ...]:
    """The taps of a layer: LayerNorms, attention, what each sublayer adds and what comes of it."""
    own = ("attention.LayerNorm", "attention.self", "attention.output")
    hidden, length = _HIDDEN[side], _HIDDEN[side].split()[1]
    if side == "encoder":
        taps, last = _attention(side, "", "", length, own), "attention_output"
    else:
        encdec = ("attention.encdec.LayerNorm", "attention.encdec", "attention.encdec_output")
        taps = _attention(side, "self_", "", length, own)
        taps, last = (*taps, *_attention(side, "cross_", "self_output", "length", encdec)), "cross_output"
    return (
        *taps,
        _of_layer(side, "intermediate_layer_norm", "layer_norm", hidden, (last,), "LayerNorm"),
        _of_layer(
            side, "intermediate", "intermediate", f"batch {length} inner", ("intermediate_layer_norm",), "intermediate"
        ),
        _of_layer(side, "output_dense", "output_dense", hidden, ("intermediate",), "output"),
        _of_layer(side, "output", "output", hidden, ("output_dense", last), "output"),
    )


def _embeddings(side: str) -> tuple[Tap, ...]:
    name, norm = f"{side}.embeddings", f"{side}.embeddings_layer_norm"
    return (
        Tap(name, _HIDDEN[side], "embeddings", kind="embeddings", golden=name),
        Tap(
            *(norm, _HIDDEN[side], f"{side}.LayerNorm", (name,)),
            kind="embeddings_layer_norm",
            when=("norm_type", "postnorm"),
            golden=norm,
        ),
    )


LAST = {
    side: Tap(f"{side}.output", _HIDDEN[side], f"{side}.LayerNorm", kind="output", golden=f"{side}.output")
    for side in _HIDDEN
}
_EXACT = "tokens are integers: they are equal or wrong"
WHOLE = (
    Tap("last_hidden_state", _HIDDEN["decoder"], "decoder", kind="output"),
    Tap("encoder_last_hidden_state", _HIDDEN["encoder"], "encoder", kind="output"),
    Tap(
        "rand_attn.{i}",
        "heads blocks random",
        "encoder.layer.{i}.attention.self",
        kind="rand_attn",
        golden="rand_attn.layer_{i}",
        exact="block numbers are drawn as integers by one rule: they are equal or wrong",
    ),
    Tap("ids", "batch summary", "", exact=_EXACT),
    Tap("beams", "batch beams summary", "", exact=_EXACT),
    Tap("beam_scores", "batch beams", "", kind="log_probs"),
    Tap("loss", "", "", kind="loss"),
)
_READS = ("is_encoder_decoder", True)
STAGES = (
    Stage("encoder.embeddings", _embeddings("encoder"), "encoder.embeddings", when=_READS),
    Stage("encoder.layer.{i}", _layer("encoder"), "encoder.layer.{i}.output", count="encoder_layers", when=_READS),
    Stage("encoder.output", (LAST["encoder"],), "encoder.output", when=_READS),
    Stage("decoder.embeddings", _embeddings("decoder"), "decoder.embeddings"),
    Stage("decoder.layer.{i}", _layer("decoder"), "decoder.layer.{i}.output", count="decoder_layers"),
    Stage("decoder.output", (LAST["decoder"],), "decoder.output"),
    Stage("head"),
)
