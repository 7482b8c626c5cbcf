"""A module in float64 NumPy from a framework's own taps, each time with one step done wrong.

Attention, the pattern and the embeddings are done wrong as in the catalogue of faults, in the reference; dense layers,
LayerNorm, activation and residual by the variations here.

Legend: L length, D hidden, V vocabulary.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from parity.bisect.bigbird.pattern import other_block
from parity.faults.bigbird.catalogue import FAULTS
from parity.faults.fault import Fault
from parity.faults.setup import Setup, make_reference
from parity.reference.heads import QUESTION_PENALTY, TRANSFORM, WORDS
from parity.reference.operations import ACTIVATIONS, Weights, standardise
from parity.run.results import Finding

Taps = dict[str, np.ndarray]
Step = tuple[str, np.ndarray]  # what was done wrong, and what came out


def steps_of(finding: Finding, setup: Setup, reference: Any, own: Taps) -> Iterator[Step]:
    """Yield what a finding's tap would be with one step done wrong; ``own``: the framework's taps of its stage."""
    tap, taps = finding.tap, {name: x.astype(np.float64) for name, x in own.items()}
    match = re.fullmatch(r"layer\.(\d+)\.(\w+)", tap)
    if match and match[2] == "context" and len(finding.attention_heads) == len(finding.query_blocks) == 1:
        place = int(match[1]), finding.attention_heads[0], finding.query_blocks[0]
        yield from other_block(*place, setup, reference, {name.rpartition(".")[2]: x for name, x in taps.items()})
    if match:
        yield from _of_layer(int(match[1]), match[2], setup, reference, taps)
    elif tap == "embeddings_prenorm":
        for fault in _in_reference():
            with fault.in_reference():
                wrong = _wrong(fault, setup).start(setup.inputs)[0][tap]
            yield _said(fault), wrong
    elif tap == "embeddings":
        yield from _norms(reference.model.weights, "embeddings.LayerNorm", taps["embeddings_prenorm"], setup)
    else:
        yield from _of_head(tap, setup, reference, taps)


def _in_reference() -> Iterator[Fault]:
    """Faults that the reference can be given and that need no other weights."""
    return (fault for fault in FAULTS.values() if fault.reference or fault.inputs or fault.config)


def _said(fault: Fault) -> str:
    return f"{fault.name}: {fault.what}"


def _wrong(fault: Fault, setup: Setup) -> Any:
    witness: Any = make_reference(fault.applied(setup))
    fault.feed(witness, setup)
    return witness


def _of_layer(i: int, kind: str, setup: Setup, reference: Any, taps: Taps) -> Iterator[Step]:
    weights, name, config = reference.model.weights, f"encoder.layer.{i}", setup.config
    given = {part.rpartition(".")[2]: x for part, x in taps.items()}
    if kind == "context":
        yield from _contexts(i, setup, given)
    elif kind in ("query", "key", "value"):
        for step, y in _denses(weights, f"{name}.attention.self.{kind}", _into(i, setup, reference)):
            yield step, reference.model.split_heads(y)
    elif kind == "intermediate":
        yield from _activated(weights, f"{name}.intermediate.dense", given["attention_output"], config.hidden_act)
    elif kind == "attention_output":
        context = given["context"].reshape(*given["context"].shape[:2], -1)
        yield from _sublayers(weights, f"{name}.attention.output", context, _into(i, setup, reference), setup)
    elif kind == "output":
        yield from _sublayers(weights, f"{name}.output", given["intermediate"], given["attention_output"], setup)


def _into(i: int, setup: Setup, reference: Any) -> np.ndarray:
    """The reference's input of layer i, which the framework was fed."""
    _, stream = reference.start(setup.inputs)
    for step in setup.config.family.steps(setup.config)[1 : i + 1]:
        _, stream = reference.step(step, stream)
    x: np.ndarray = reference.hidden(stream)
    return x


def _contexts(i: int, setup: Setup, given: Taps) -> Iterator[Step]:
    """Attention on the framework's queries, keys and values, with every fault of the catalogue."""
    module: Any = importlib.import_module("parity.reference.model")  # whose function a fault may have replaced
    for fault in _in_reference():
        with fault.in_reference():
            wrong = _wrong(fault, setup)
            _, stream = wrong.start(setup.inputs)
            if wrong.config.num_attention_heads != given["query"].shape[1]:
                continue
            seen = wrong.model.visibility(i, stream)
            context = module.attend(given["query"], given["key"], given["value"], seen)
        yield _said(fault), context


def _denses(weights: Weights, module: str, x: np.ndarray) -> Iterator[Step]:
    """x @ kernel + bias, right and wrong."""
    kernel, bias = weights[f"{module}.kernel"], weights.get(f"{module}.bias", np.zeros(1))
    yield "nothing: the dense layer as it should be", x @ kernel + bias
    yield f"bias: {module} adds none", x @ kernel
    if kernel.shape[0] == kernel.shape[1]:
        yield f"kernel: {module} uses its transpose", x @ kernel.T + bias


def _activated(weights: Weights, module: str, x: np.ndarray, right: str) -> Iterator[Step]:
    """act(dense(x)): every other activation, then the dense layer's steps."""
    y = x @ weights[f"{module}.kernel"] + weights.get(f"{module}.bias", 0)
    for name, activation in ACTIVATIONS.items():
        if name != right:
            yield f"activation: {name}, not {right}", activation.value(y)
    for step, z in _denses(weights, module, x):
        yield step, ACTIVATIONS[right].value(z)


def _sublayers(weights: Weights, module: str, inner: np.ndarray, x: np.ndarray, setup: Setup) -> Iterator[Step]:
    """LayerNorm(x + dense(inner)): residual, norm, dense."""
    right = next(_denses(weights, f"{module}.dense", inner))[1]
    yield "residual: dropped", next(_norms(weights, f"{module}.LayerNorm", right, setup))[1]
    yield from _norms(weights, f"{module}.LayerNorm", x + right, setup)
    for step, y in _denses(weights, f"{module}.dense", inner):
        yield step, next(_norms(weights, f"{module}.LayerNorm", x + y, setup))[1]


def _norms(weights: Weights, module: str, x: np.ndarray, setup: Setup) -> Iterator[Step]:
    """LayerNorm(x), right and wrong."""
    gamma, beta, eps = weights[f"{module}.gamma"], weights[f"{module}.beta"], setup.config.layer_norm_eps
    (centred, deviation), D = standardise(x, eps), x.shape[-1]
    normed = centred / deviation
    yield from (
        ("norm: as it should be", normed * gamma + beta),
        ("norm: skipped", x),
        ("norm: epsilon 1e-5", centred / standardise(x, 1e-5)[1] * gamma + beta),
        ("norm: unbiased variance", normed * np.sqrt(1 - 1 / D) * gamma + beta),
        ("norm: gamma and beta exchanged", normed * beta + gamma),
        ("norm: no gamma", normed + beta),
        ("norm: no beta", normed * gamma),
        ("norm: mean not subtracted", x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * gamma + beta),
    )


def _of_head(tap: str, setup: Setup, reference: Any, taps: Taps) -> Iterator[Step]:
    """What follows the encoder."""
    weights, config = reference.model.weights, setup.config
    x = _into(config.num_hidden_layers, setup, reference)
    act = ACTIVATIONS[config.hidden_act].value
    if tap == "pooler_output":
        yield "token: the second one is pooled", np.tanh(x[:, 1] @ weights["pooler.kernel"] + weights["pooler.bias"])
        for step, y in _denses(weights, "pooler", x[:, 0]):
            yield step, np.tanh(y)
            yield f"activation: no tanh; {step}", y
    elif tap == "transform":
        y = act(next(_denses(weights, f"{TRANSFORM}.dense", x))[1])
        yield from _norms(weights, f"{TRANSFORM}.LayerNorm", y, setup)
        for step, z in _activated(weights, f"{TRANSFORM}.dense", x, config.hidden_act):
            yield step, next(_norms(weights, f"{TRANSFORM}.LayerNorm", z, setup))[1]
    elif "transform" in taps and tap in ("logits", "prediction_logits"):
        words, bias = weights[WORDS], weights["cls.predictions.bias"]
        yield "bias: the vocabulary's is not added", taps["transform"] @ words.T
        yield "decoder: the embedding of the token before", taps["transform"] @ np.roll(words, 1, axis=0).T + bias
    elif tap == "logits" and "classifier.dense.kernel" in weights:
        module = "classifier.out_proj"
        for token in (0, 1):
            hidden = act(next(_denses(weights, "classifier.dense", x[:, token]))[1])
            for step, y in _denses(weights, module, hidden):
                yield f"token: {token} stands for the text; {step}", y
    elif tap in ("start_logits", "end_logits"):
        question_BL = reference.start(setup.inputs)[1].given.question
        span = taps["span_logits"][..., int(tap == "end_logits")]
        yield "mask: the question is not masked", span
        yield "mask: it hits [CLS] as well", span - question_BL * QUESTION_PENALTY
