"""The gradients of BigBird-Pegasus' reference, written by hand in NumPy float64: for every weight and every tap.

It goes through the stages in reverse. What both uses of a coupled weight contribute is added up.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bigbird_port.families.family import Step
from parity.given.inputs import Inputs
from parity.reference.attention import Visibility, attend_backward
from parity.reference.backward import Gradients, PassBack
from parity.reference.losses import Labels
from parity.reference.operations import ACTIVATIONS, dense
from parity.reference.own import own_function
from parity.reference.pegasus.heads import Taps, ends_of
from parity.reference.pegasus.inputs import Stream
from parity.reference.pegasus.model import POSITIONS, WORDS, Reference
from parity.reference.rounding import either_side, lossy

_ENCODER = {"dense": "attention_dense", "output": "attention_output", "layer_norm": "self_layer_norm"}


def backward(reference: Reference, inputs: Inputs, labels: Labels) -> Gradients:
    """Return the loss of ``inputs`` and all its gradients; ``labels``: as for the loss. Raises ValueError likewise."""
    taps, streams = forward(reference, inputs)
    terms = reference.loss_terms(taps, labels)
    scores: Taps = {}
    for term in terms.values():
        scores |= term.gradients
    back = _PassBack(reference, taps, scores)
    back.all_stages(streams)
    loss = sum(term.value for term in terms.values())
    return Gradients(loss, back.weights, back.taps, {name: taps[name] for name in scores})


def forward(reference: Reference, inputs: Inputs) -> tuple[Taps, list[Stream]]:
    """Return every tap, and the stream into each stage but the first, and into the head."""
    taps, stream = reference.start(inputs)
    streams = [stream]
    for step in reference.config.family.steps(reference.config)[1:-1]:
        own, stream = reference.step(step, stream)
        taps |= own
        streams.append(stream)
    return taps | reference.finish(stream), streams


class _PassBack(PassBack):
    """One backward pass: the forward pass's taps, and the gradients found so far (those of weights add up)."""

    reference: Any
    config: Any

    def all_stages(self, streams: list[Stream]) -> None:
        """Go back through the head and all stages; streams: as forward returns them."""
        d_x = own_function(self.config, self.reference.head, "head_backward", _HEADS)(self, streams[-1])
        d_encoder = np.zeros(())
        steps = self.config.family.steps(self.config)
        for step, stream in reversed(list(zip(steps[1:-1], streams, strict=False))):
            d_x, d_encoder = self._stage(step, stream, d_x, d_encoder)
        self._embeddings(steps[0].stage.name.partition(".")[0], streams[0], d_x)

    def _stage(self, step: Step, stream: Stream, d_x: np.ndarray, d_encoder: np.ndarray) -> tuple[Any, Any]:
        """Go back through a stage with the stream that went into it; return the gradients of what went in."""
        side, _, part = step.stage.name.partition(".")
        if part == "output":
            self.taps[f"{side}.output"] = d_x
            return self._normed(f"{side}.LayerNorm", stream.x, d_x, "prenorm"), d_encoder
        if part == "embeddings":
            self._embeddings(side, stream, d_x)
            return d_encoder, np.zeros(())
        if side == "encoder":
            return self._encoder_layer(step, stream, d_x), d_encoder
        return self._decoder_layer(step, stream, d_x, d_encoder)

    def _encoder_layer(self, step: Step, stream: Stream, d_output: np.ndarray) -> np.ndarray:
        seen = self.reference.visibility(step.index, stream)
        d_attention = self._feed_forward(step.name, "attention_output", d_output)
        names = _ENCODER | {part: part for part in ("query", "key", "value", "context")}
        d_x, _ = self._attention(step.name, "self", names, stream.x, None, seen, d_attention)
        return d_x

    def _decoder_layer(
        self, step: Step, stream: Stream, d_output: np.ndarray, d_encoder: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        parts = ("layer_norm", "query", "key", "value", "context", "dense", "output")
        own, crossed = ({part: f"{before}_{part}" for part in parts} for before in ("self", "cross"))
        if stream.encoder is None:
            d_x = self._feed_forward(step.name, "self_output", d_output)
        else:
            d_cross, seen = self._feed_forward(step.name, "cross_output", d_output), self.reference.crossed(stream)
            x = self.forward_taps[f"{step.name}.self_output"]
            d_x, d_keyed = self._attention(step.name, "encdec", crossed, x, stream.encoder, seen, d_cross)
            d_encoder = d_encoder + d_keyed
        d_x, _ = self._attention(step.name, "self", own, stream.x, None, self.reference.causal(stream), d_x)
        return d_x, d_encoder

    def _attention(
        self,
        layer: str,
        kind: str,
        names: Mapping[str, str],
        x: np.ndarray,
        keyed: np.ndarray | None,
        seen: Visibility,
        d_left: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Go back through an attention sublayer with input x; return the gradients of x and of what is keyed."""
        taps: Any = {part: self.forward_taps.get(f"{layer}.{name}") for part, name in names.items()}
        module = f"{layer}.attention"
        norm = f"{module}.LayerNorm" if kind == "self" else f"{module}.{kind}.LayerNorm"
        output = f"{module}.{'output' if kind == 'self' else f'{kind}_output'}.dense"
        d_sum = self._normed(norm, x + taps["dense"], d_left, "postnorm")
        context = taps["context"]
        d_context = self._owned(output, context.reshape(x.shape), d_sum).reshape(context.shape)
        back = attend_backward(taps["query"], taps["key"], taps["value"], seen, d_context)
        parts = dict(zip(("query", "key", "value"), back, strict=True))
        entered = x if taps["layer_norm"] is None else taps["layer_norm"]
        d_entered, d_keyed = np.zeros(x.shape), np.zeros(()) if keyed is None else np.zeros(keyed.shape)
        for part, d_BNLH in parts.items():
            own = entered if keyed is None or part == "query" else keyed
            found = self._owned(f"{module}.{kind}.{part}", own, d_BNLH.swapaxes(1, 2).reshape(own.shape))
            d_entered, d_keyed = (d_entered + found, d_keyed) if own is entered else (d_entered, d_keyed + found)
        parts |= {"context": d_context, "dense": d_sum, "output": d_left, "layer_norm": d_entered}
        self._keep(layer, {names[part]: d for part, d in parts.items()})
        return d_sum + self._normed(norm, x, d_entered, "prenorm"), d_keyed

    def _feed_forward(self, layer: str, before: str, d_output: np.ndarray) -> np.ndarray:
        """Go back through the feed-forward sublayer, whose input is the tap ``before``."""
        x, inner, added = (self.forward_taps[f"{layer}.{name}"] for name in (before, "intermediate", "output_dense"))
        norm = f"{layer}.LayerNorm"
        d_sum = self._normed(norm, x + added, d_output, "postnorm")
        d_inner = self._owned(f"{layer}.output.dense", inner, d_sum)
        entered = self.forward_taps.get(f"{layer}.intermediate_layer_norm", x)
        up = f"{layer}.intermediate.dense"
        activated = either_side(up, dense(self.values, self.reference.owner(up), entered))
        slope = ACTIVATIONS[self.config.activation_function].slope(activated)
        d_entered = self._owned(up, entered, lossy(d_inner) * slope)
        found = {"output": d_output, "output_dense": d_sum, "intermediate": d_inner}
        self._keep(layer, found | {"intermediate_layer_norm": d_entered})
        return d_sum + self._normed(norm, x, d_entered, "prenorm")

    def _embeddings(self, side: str, stream: Stream, d_x: np.ndarray) -> None:
        """Go back through the embeddings of a side."""
        name, given = f"{side}.embeddings", stream.given
        if self.config.norm_type == "postnorm":
            self.taps[f"{name}_layer_norm"] = d_x
        d_sum = self._normed(f"{side}.LayerNorm", self.forward_taps[name], d_x, "postnorm")
        self.taps[name] = d_sum
        ids = given.input_ids if side == "encoder" else given.decoder_ids
        d_sum = lossy(d_sum, d_sum.shape[1])
        np.add.at(self.weights[WORDS], ids, d_sum * self.reference.scale())
        self.weights[POSITIONS][: ids.shape[1]] += d_sum.sum(axis=0)

    def _keep(self, layer: str, found: Taps) -> None:
        """Keep the gradients of those taps that the forward pass had."""
        named = {f"{layer}.{name}": d for name, d in found.items()}
        self.taps |= {name: d for name, d in named.items() if name in self.forward_taps}

    def _owned(self, module: str, x: np.ndarray, d_y: np.ndarray) -> np.ndarray:
        """Go back through a dense layer, whose weights may be the encoder's."""
        return self.dense(self.reference.owner(module), x, d_y)

    def _normed(self, module: str, x: np.ndarray, d_y: np.ndarray, norm_type: str) -> np.ndarray:
        """Go back through a LayerNorm that there is in models of a norm_type; in others through nothing."""
        return self.layer_norm(self.reference.owner(module), x, d_y) if self.config.norm_type == norm_type else d_y


def _nothing(back: _PassBack, stream: Stream) -> np.ndarray:
    return np.zeros(stream.x.shape)


def _language_model(back: _PassBack, stream: Stream) -> np.ndarray:
    d_logits = lossy(back.taps["logits"], back.taps["logits"].shape[1])
    back.weights[WORDS] += np.einsum("btv,btd->vd", d_logits, stream.x, optimize=True)
    d_x: np.ndarray = lossy(d_logits @ back.values[WORDS])
    return d_x


def _sequence_classification(back: _PassBack, stream: Stream) -> np.ndarray:
    at = np.arange(len(stream.x)), ends_of(back.config, stream)
    inner = np.tanh(dense(back.values, "classification_head.dense", stream.x[at]))
    d_inner = back.dense("classification_head.out_proj", inner, back.taps["logits"])
    d_x = np.zeros(stream.x.shape)
    d_x[at] = back.dense("classification_head.dense", stream.x[at], d_inner * (1 - lossy(np.square(inner))))
    return d_x


def _question_answering(back: _PassBack, stream: Stream) -> np.ndarray:
    d_spans = np.stack((back.taps["start_logits"], back.taps["end_logits"]), axis=-1)
    return back.dense("qa_outputs", stream.x, d_spans)


_HEADS: dict[str, Callable[[_PassBack, Stream], np.ndarray]] = {
    "base": _nothing,
    "conditional-generation": _language_model,
    "causal-lm": _language_model,
    "sequence-classification": _sequence_classification,
    "qa": _question_answering,
}
