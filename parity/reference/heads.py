"""The eight heads in float64 NumPy: from hidden states to scores, under the models' names.

Legend: B batch, C labels or choices, L length, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.reference.dropout import dropped
from parity.reference.inputs import Stream
from parity.reference.operations import Weights, activate, dense, layer_norm
from parity.reference.own import own_function
from parity.reference.rounding import lossy

Taps = dict[str, np.ndarray]
WORDS = "embeddings.word_embeddings.embedding"
TRANSFORM = "cls.predictions.transform"
_WORDS_AT_ONCE = 4096  # embeddings that are widened to float64 at a time
QUESTION_PENALTY = 1e6  # taken from the scores of the question's tokens, [CLS] spared
MASKED = -QUESTION_PENALTY / 2  # scores below are theirs


def head_taps(config: BigBirdConfig, weights: Weights, head: str, stream: Stream) -> Taps:
    """Return the scores of a head and the taps before them, from the last layer's output."""
    return own_function(config, head, "head_taps", _HEADS)(config, weights, stream)


def _pooled(config: BigBirdConfig, weights: Weights, stream: Stream) -> Taps:
    return {"pooler_output": lossy(np.tanh(dense(weights, "pooler", stream.x[:, 0])))}


def _language_model(config: BigBirdConfig, weights: Weights, stream: Stream, name: str = "logits") -> Taps:
    """LayerNorm(act(dense(x))), then the transposed word embeddings."""
    hidden = activate(config.hidden_act, dense(weights, f"{TRANSFORM}.dense", stream.x))
    transform = layer_norm(weights, f"{TRANSFORM}.LayerNorm", hidden, config.layer_norm_eps)
    words, bias = weights[WORDS], weights["cls.predictions.bias"]
    logits = np.empty((*transform.shape[:-1], len(words)))
    given = lossy(transform, transform.shape[-1])
    for start in range(0, len(words), _WORDS_AT_ONCE):
        some = slice(start, start + _WORDS_AT_ONCE)
        logits[..., some] = lossy(given @ lossy(words[some].T.astype(np.float64))) + lossy(bias[some])
    return {"transform": transform, name: logits}


def _pretraining(config: BigBirdConfig, weights: Weights, stream: Stream) -> Taps:
    pooled = _pooled(config, weights, stream)
    # stored as [2, D], unlike every other kernel
    kernel, bias = weights["cls.seq_relationship.kernel"], weights["cls.seq_relationship.bias"]
    n = kernel.shape[-1]
    scores = lossy(pooled["pooler_output"], n) @ lossy(kernel, n).T + lossy(bias)
    language = _language_model(config, weights, stream, "prediction_logits")
    return language | pooled | {"seq_relationship_logits": scores}


def _sequence_classification(config: BigBirdConfig, weights: Weights, stream: Stream) -> Taps:
    """The original's head on the pooled output, or transformers' on the first token."""
    if config.classifier_style == "original":
        pooled = _pooled(config, weights, stream)
        return pooled | {"logits": dense(weights, "sequence.classifier", _classified(config, pooled["pooler_output"]))}
    hidden = activate(config.hidden_act, dense(weights, "classifier.dense", _classified(config, stream.x[:, 0])))
    return {"logits": dense(weights, "classifier.out_proj", _classified(config, hidden))}


def _classified(config: BigBirdConfig, x: np.ndarray) -> np.ndarray:
    """What a classification head takes, which training drops from."""
    own = config.classifier_dropout
    return dropped(x, config.hidden_dropout_prob if own is None else own)


def _multiple_choice(config: BigBirdConfig, weights: Weights, stream: Stream) -> Taps:
    pooled = _pooled(config, weights, stream)
    assert stream.given.choices is not None  # complete_inputs counted them
    scores = dense(weights, "choice.classifier", _classified(config, pooled["pooler_output"]))
    return pooled | {"logits": scores.reshape(-1, stream.given.choices)}


def _token_classification(config: BigBirdConfig, weights: Weights, stream: Stream) -> Taps:
    return {"logits": dense(weights, "token.classifier", _classified(config, stream.x))}


def _question_answering(config: BigBirdConfig, weights: Weights, stream: Stream) -> Taps:
    """A feed-forward sublayer with residual and LayerNorm, then two scores a token."""
    entered = dropped(stream.x, config.hidden_dropout_prob)
    inner = activate(config.hidden_act, dense(weights, "qa_classifier.intermediate.dense", entered))
    residual = stream.x + dense(weights, "qa_classifier.output.dense", inner)
    hidden = layer_norm(weights, "qa_classifier.output.LayerNorm", residual, config.layer_norm_eps)
    span = dense(weights, "qa_classifier.qa_outputs", hidden)
    assert stream.given.question is not None  # complete_inputs found it
    penalty = stream.given.question * QUESTION_PENALTY
    penalty[:, 0] = 0
    return {"span_logits": span, "start_logits": span[..., 0] - penalty, "end_logits": span[..., 1] - penalty}


_HEADS: dict[str, Callable[[BigBirdConfig, Weights, Stream], Taps]] = {
    "base": _pooled,
    "pretraining": _pretraining,
    "masked-lm": _language_model,
    "causal-lm": _language_model,
    "sequence-classification": _sequence_classification,
    "multiple-choice": _multiple_choice,
    "token-classification": _token_classification,
    "qa": _question_answering,
}
