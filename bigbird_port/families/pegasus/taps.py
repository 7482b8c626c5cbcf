"""BigBird-Pegasus' taps: what can be compared in a model, in the order in which it is computed.

Axes: batch, length (of the texts), summary (tokens of the decoder), hidden, inner, heads and size (attention heads and
their size).
"""

from __future__ import annotations

from collections.abc import Sequence

from bigbird_port.families.family import Stage, Tap

_HIDDEN = {"encoder": "batch length hidden", "decoder": "batch summary hidden"}


def _of_layer(side: str, own: str, axes: str, sources: Sequence[str], module: str) -> Tap:
    """One tap of a layer."""
    name = f"{side}.layer.{{i}}"
    return Tap(
        f"{name}.{own}",
        axes,
        f"{name}.{module}",
        tuple(f"{name}.{source}" for source in sources),
        kind=own,
        golden=f"{side}.layer_{{i}}" if own == "output" else f"{side}.layer_{{i}}.{own}",
    )


def _layer(side: str) -> tuple[Tap, ...]:
    """The taps of a layer: LayerNorms, contexts, what each sublayer adds and what comes of it."""
    hidden = _HIDDEN[side]
    length = hidden.split()[1]
    own = "" if side == "encoder" else "self_"
    norm, dense, output = (
        ("self_layer_norm", "attention_dense", "attention_output")
        if side == "encoder"
        else ("self_layer_norm", "self_dense", "self_output")
    )
    taps = [
        _of_layer(side, norm, hidden, (), "attention.LayerNorm"),
        _of_layer(side, f"{own}context", f"batch {length} heads size", (norm,), "attention.self"),
        _of_layer(side, dense, hidden, (f"{own}context",), "attention.output"),
        _of_layer(side, output, hidden, (dense,), "attention.output"),
    ]
    last = output
    if side == "decoder":
        taps += [
            _of_layer(side, "cross_layer_norm", hidden, (output,), "attention.encdec.LayerNorm"),
            _of_layer(side, "cross_context", f"batch {length} heads size", ("cross_layer_norm",), "attention.encdec"),
            _of_layer(side, "cross_dense", hidden, ("cross_context",), "attention.encdec_output"),
            _of_layer(side, "cross_output", hidden, ("cross_dense", output), "attention.encdec_output"),
        ]
        last = "cross_output"
    return (
        *taps,
        _of_layer(side, "intermediate_layer_norm", hidden, (last,), "LayerNorm"),
        _of_layer(side, "intermediate", f"batch {length} inner", ("intermediate_layer_norm",), "intermediate"),
        _of_layer(side, "output_dense", hidden, ("intermediate",), "output"),
        _of_layer(side, "output", hidden, ("output_dense", last), "output"),
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
    Tap("ids", "batch summary", "", exact="tokens are integers: they are equal or wrong"),
    Tap("loss", "", "", kind="loss"),
)
STAGES = (
    Stage("encoder.embeddings", _embeddings("encoder"), "encoder.embeddings"),
    Stage("encoder.layer.{i}", _layer("encoder"), "encoder.layer.{i}.output", count="encoder_layers"),
    Stage("encoder.output", (LAST["encoder"],), "encoder.output"),
    Stage("decoder.embeddings", _embeddings("decoder"), "decoder.embeddings"),
    Stage("decoder.layer.{i}", _layer("decoder"), "decoder.layer.{i}.output", count="decoder_layers"),
    Stage("decoder.output", (LAST["decoder"],), "decoder.output"),
    Stage("head"),
)
