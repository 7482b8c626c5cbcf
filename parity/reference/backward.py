"""The reference's gradients, written by hand in NumPy float64: of a loss, for every weight and every tap.

Each step takes the forward pass's taps, computes again what lies between two of them, and goes from the gradient of a
step's output to that of its input, adding up those of the weights on the way. It is for small models: all taps stay.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigbird_port.families.family import Step
from parity.given.inputs import Inputs
from parity.reference.attention import attend_backward
from parity.reference.heads import TRANSFORM, WORDS, Taps
from parity.reference.inputs import Stream
from parity.reference.losses import Labels, loss_terms
from parity.reference.model import Reference
from parity.reference.operations import ACTIVATIONS, dense, layer_norm, standardise
from parity.reference.own import own_function
from parity.reference.rounding import either_side, lossy


@dataclass(frozen=True, eq=False)
class Gradients:
    """A loss, its gradients by canonical name of the weight (0 for one it does not use) and by tap, and its scores."""

    loss: float
    weights: Taps
    taps: Taps
    scores: Taps


def backward(reference: Reference, inputs: Inputs, labels: Labels) -> Gradients:
    """Return the loss of ``inputs`` and all its gradients; ``labels``: as for the loss. Raises ValueError likewise."""
    taps, streams = forward(reference, inputs)
    terms = loss_terms(reference.config, reference.head, taps, labels)
    scores: Taps = {}
    for term in terms.values():
        scores |= term.gradients
    loss = sum(term.value for term in terms.values())
    return Gradients(loss, *propagate(reference, taps, streams, scores), {name: taps[name] for name in scores})


def forward(reference: Reference, inputs: Inputs) -> tuple[Taps, list[Stream]]:
    """Return every tap, and the stream into layer 0, layer 1, .. and into the head."""
    taps, stream = reference.start(inputs)
    streams = [stream]
    for step in reference.config.family.steps(reference.config)[1:-1]:
        own, stream = reference.step(step, stream)
        taps |= own
        streams.append(stream)
    return taps | reference.finish(stream), streams


def propagate(reference: Reference, taps: Taps, streams: list[Stream], scores: Taps) -> tuple[Taps, Taps]:
    """Go from gradients of the scores, by name, to those of all weights and of all taps.

    taps, streams: as forward returns them. ``scores`` may hold a gradient of what the head reads; the base model,
    which has no loss, goes by that and by one of pooler_output.
    """
    steps = reference.config.family.steps(reference.config)[1:-1]
    back = PassBack(reference, taps, scores)
    d_x = own_function(reference.config, reference.head, "head_backward", _HEADS)(back, streams[-1])
    d_x = d_x + scores.get(steps[-1].output, 0)
    for step, stream in reversed(list(zip(steps, streams, strict=False))):
        d_x = back.last_norm(step, stream, d_x) if step.number is None else back.layer(step.number, stream, d_x)
    back.embeddings(streams[0], d_x)
    return back.weights, back.taps


class PassBack:
    """One backward pass: the forward pass's taps, and the gradients found so far (those of weights add up)."""

    def __init__(self, reference: Reference, taps: Taps, scores: Taps) -> None:
        self.config, self.values, self.forward_taps = reference.config, reference.weights, taps
        self.reference = reference
        self.weights: Taps = {name: np.zeros(x.shape) for name, x in reference.weights.items()}
        self.taps: Taps = dict(scores)

    def dense(self, module: str, x: np.ndarray, d_y: np.ndarray) -> np.ndarray:
        """Go back through a dense layer with input ``x``."""
        rows, d_rows = x.reshape(-1, x.shape[-1]), d_y.reshape(-1, d_y.shape[-1])
        self.weights[f"{module}.kernel"] += lossy(rows, len(rows)).T @ lossy(d_rows, len(rows))
        if f"{module}.bias" in self.weights:
            self.weights[f"{module}.bias"] += lossy(d_rows, len(rows)).sum(axis=0)
        n = d_y.shape[-1]
        return lossy(d_y, n) @ lossy(self.values[f"{module}.kernel"], n).T

    def activated(self, module: str, x: np.ndarray, d_y: np.ndarray) -> np.ndarray:
        """Go back through act(dense(x))."""
        before = either_side(module, dense(self.values, module, x))
        d_y = lossy(d_y) * ACTIVATIONS[self.config.hidden_act].slope(before)
        return self.dense(module, x, d_y)

    def layer_norm(self, module: str, x: np.ndarray, d_y: np.ndarray) -> np.ndarray:
        """Go back through a LayerNorm with input ``x``."""
        centred, deviation = standardise(x, self.config.layer_norm_eps)
        normed = centred / deviation
        axes, n = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        self.weights[f"{module}.gamma"] += (lossy(d_y, n) * lossy(normed)).sum(axis=axes)
        self.weights[f"{module}.beta"] += lossy(d_y, n).sum(axis=axes)
        d_normed = lossy(d_y * self.values[f"{module}.gamma"])
        along = lossy(normed * lossy((d_normed * normed).mean(axis=-1, keepdims=True)))
        return lossy(d_normed - lossy(d_normed.mean(axis=-1, keepdims=True)) - along) / deviation

    def feed_forward(
        self, up: str, down: str, norm: str, x: np.ndarray, inner: np.ndarray, d_y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Go back through LayerNorm(x + dense(inner)) with inner = act(dense(x)); return d_x and d_inner."""
        d_residual = self.layer_norm(norm, x + dense(self.values, down, inner), d_y)
        d_inner = self.dense(down, inner, d_residual)
        return d_residual + self.activated(up, x, d_inner), d_inner

    def norm_where(self, norm_type: str, module: str, x: np.ndarray, d_y: np.ndarray) -> np.ndarray:
        """Go back through a LayerNorm that there is in models of a norm_type; in others through nothing."""
        return self.layer_norm(module, x, d_y) if self.reference.has_norm(norm_type) else d_y

    def last_norm(self, step: Step, stream: Stream, d_output: np.ndarray) -> np.ndarray:
        """Go back through the LayerNorm behind the last layer, which there is in prenorm."""
        self.taps[step.output] = d_output
        return self.norm_where("prenorm", "encoder.LayerNorm", stream.x, d_output)

    def layer(self, i: int, stream: Stream, d_output: np.ndarray) -> np.ndarray:
        """Go back through layer ``i`` with the stream that went into it; return the gradient of stream.x."""
        module, x = f"encoder.layer.{i}", stream.x
        q, k, v, context, attention, inner = (
            self.forward_taps[f"layer.{i}.{name}"]
            for name in ("query", "key", "value", "context", "attention_output", "intermediate")
        )
        d_attention, d_inner = self.sublayer(i, attention, inner, d_output)
        merged, project = context.reshape(x.shape), f"{module}.attention.output.dense"
        residual = x + dense(self.values, project, merged)
        d_residual = self.norm_where("postnorm", f"{module}.attention.output.LayerNorm", residual, d_attention)
        d_context = self.dense(project, merged, d_residual).reshape(context.shape)
        visibility = self.reference.visibility(i, stream)
        parts = dict(zip(("query", "key", "value"), attend_backward(q, k, v, visibility, d_context), strict=True))
        found = {"output": d_output, "intermediate": d_inner, "attention_output": d_attention, "context": d_context}
        self.taps |= {f"layer.{i}.{name}": d for name, d in (parts | found).items()}
        before = f"{module}.attention.self.LayerNorm"
        entered, d_entered = self.reference.norm_where("prenorm", before, x), np.zeros(x.shape)
        for part, d_BNLH in parts.items():
            d_part = d_BNLH.swapaxes(1, 2).reshape(x.shape)
            d_entered = d_entered + self.dense(f"{module}.attention.self.{part}", entered, d_part)
        return self.joined(d_residual, self.norm_where("prenorm", before, x, d_entered))

    def sublayer(self, i: int, x: np.ndarray, inner: np.ndarray, d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Go back through the feed-forward sublayer of layer ``i``; return the gradients of its input and of inner."""
        module = f"encoder.layer.{i}"
        up, down = f"{module}.intermediate.dense", f"{module}.output.dense"
        if self.reference.has_norm("postnorm"):
            return self.feed_forward(up, down, f"{module}.output.LayerNorm", x, inner, d_output)
        before = f"{module}.intermediate.LayerNorm"
        d_inner = self.dense(down, inner, d_output)
        d_entered = self.activated(up, self.reference.norm_where("prenorm", before, x), d_inner)
        return self.joined(d_output, self.norm_where("prenorm", before, x, d_entered)), d_inner

    def joined(self, d_residual: np.ndarray, d_branch: np.ndarray) -> np.ndarray:
        """The gradient of what a sublayer reads and adds to; in prenorm no LayerNorm rounds the sum."""
        d_x = d_residual + d_branch
        return lossy(d_x) if self.reference.has_norm("prenorm") else d_x

    def embeddings(self, stream: Stream, d_x: np.ndarray) -> None:
        """Go back through the embeddings."""
        d_sum = self.norm_where("postnorm", "embeddings.LayerNorm", self.forward_taps["embeddings_prenorm"], d_x)
        self.taps |= {"embeddings": d_x, "embeddings_prenorm": d_sum}
        scale = math.sqrt(self.config.hidden_size) if self.config.rescale_embeddings else 1.0
        given = stream.given
        d_sum = lossy(d_sum, d_sum.shape[1])
        np.add.at(self.weights[WORDS], given.input_ids, d_sum * scale)
        np.add.at(self.weights["embeddings.token_type_embeddings.embedding"], given.token_type_ids, d_sum)
        np.add.at(self.weights["embeddings.position_embeddings.embedding"], given.position_ids, d_sum)

    def pooled(self, stream: Stream, d_pooled: np.ndarray) -> np.ndarray:
        """Go back from pooler_output to the hidden states."""
        self.taps["pooler_output"] = d_pooled
        d_y = d_pooled * (1 - lossy(np.square(self.forward_taps["pooler_output"])))
        return _at_first(stream, self.dense("pooler", stream.x[:, 0], d_y))


def _at_first(stream: Stream, d_first: np.ndarray) -> np.ndarray:
    """The gradient [B, L, D] of hidden states of which only the first token counts."""
    d_x = np.zeros_like(stream.x)
    d_x[:, 0] = d_first
    return d_x


def _base(back: PassBack, stream: Stream) -> np.ndarray:
    return back.pooled(stream, back.taps.get("pooler_output", np.zeros_like(stream.x[:, 0])))


def _language_model(back: PassBack, stream: Stream, name: str = "logits") -> np.ndarray:
    transform, n = back.forward_taps["transform"], back.taps[name].shape[1]
    d_logits = lossy(back.taps[name], n)
    back.weights["cls.predictions.bias"] += d_logits.sum(axis=(0, 1))
    back.weights[WORDS] += np.einsum("blv,bld->vd", d_logits, transform, optimize=True)
    d_transform = back.taps["transform"] = d_logits @ back.values[WORDS]
    before = dense(back.values, f"{TRANSFORM}.dense", stream.x)
    hidden = ACTIVATIONS[back.config.hidden_act].value(before)
    d_hidden = back.layer_norm(f"{TRANSFORM}.LayerNorm", hidden, d_transform)
    return back.activated(f"{TRANSFORM}.dense", stream.x, d_hidden)


def _pretraining(back: PassBack, stream: Stream) -> np.ndarray:
    d_x = _language_model(back, stream, "prediction_logits")
    pooled, name = back.forward_taps["pooler_output"], "seq_relationship_logits"
    d_scores = back.taps.setdefault(name, np.zeros_like(back.forward_taps[name]))  # a loss may leave it out
    back.weights["cls.seq_relationship.kernel"] += d_scores.T @ pooled
    back.weights["cls.seq_relationship.bias"] += d_scores.sum(axis=0)
    return d_x + back.pooled(stream, d_scores @ back.values["cls.seq_relationship.kernel"])


def _sequence_classification(back: PassBack, stream: Stream) -> np.ndarray:
    d_logits = back.taps["logits"]
    if back.config.classifier_style == "original":
        pooled = back.forward_taps["pooler_output"]
        return back.pooled(stream, back.dense("sequence.classifier", pooled, d_logits))
    first = stream.x[:, 0]
    hidden = ACTIVATIONS[back.config.hidden_act].value(dense(back.values, "classifier.dense", first))
    d_hidden = back.dense("classifier.out_proj", hidden, d_logits)
    return _at_first(stream, back.activated("classifier.dense", first, d_hidden))


def _multiple_choice(back: PassBack, stream: Stream) -> np.ndarray:
    d_scores = back.taps["logits"].reshape(-1, 1)
    return back.pooled(stream, back.dense("choice.classifier", back.forward_taps["pooler_output"], d_scores))


def _token_classification(back: PassBack, stream: Stream) -> np.ndarray:
    return back.dense("token.classifier", stream.x, back.taps["logits"])


def _question_answering(back: PassBack, stream: Stream) -> np.ndarray:
    d_span = back.taps["span_logits"] = np.stack((back.taps["start_logits"], back.taps["end_logits"]), axis=-1)
    up, down, norm = (f"qa_classifier.{part}" for part in ("intermediate.dense", "output.dense", "output.LayerNorm"))
    inner = ACTIVATIONS[back.config.hidden_act].value(dense(back.values, up, stream.x))
    hidden = layer_norm(back.values, norm, stream.x + dense(back.values, down, inner), back.config.layer_norm_eps)
    d_hidden = back.dense("qa_classifier.qa_outputs", hidden, d_span)
    return back.feed_forward(up, down, norm, stream.x, inner, d_hidden)[0]


_HEADS: dict[str, Callable[[PassBack, Stream], np.ndarray]] = {
    "base": _base,
    "pretraining": _pretraining,
    "masked-lm": _language_model,
    "causal-lm": _language_model,
    "sequence-classification": _sequence_classification,
    "multiple-choice": _multiple_choice,
    "token-classification": _token_classification,
    "qa": _question_answering,
}
