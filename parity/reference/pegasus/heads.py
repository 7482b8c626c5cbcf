"""The five heads of BigBird-Pegasus in float64 NumPy: from the decoder's output to scores, under the models' names.

Legend: B batch, T tokens of the decoder, D hidden, V vocabulary, C labels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from parity.reference.operations import Weights, dense
from parity.reference.pegasus.inputs import Stream
from parity.reference.rounding import lossy

Taps = dict[str, np.ndarray]
_WORDS = "embeddings.word_embeddings.embedding"
_WORDS_AT_ONCE = 4096  # embeddings that are widened to float64 at a time


def ends_of(config: BigBirdPegasusConfig, stream: Stream) -> np.ndarray:
    """Return where each text has its last end-of-sequence token, [B]; raises ValueError where one has none."""
    ends_BL = stream.given.input_ids == config.eos_token_id
    if not ends_BL.any(axis=1).all():
        raise ValueError(f"input_ids: every text must hold the end-of-sequence token {config.eos_token_id}")
    found: np.ndarray = ends_BL.shape[1] - 1 - ends_BL[:, ::-1].argmax(axis=1)
    return found


def _nothing(config: BigBirdPegasusConfig, weights: Weights, stream: Stream) -> Taps:
    return {}


def _language_model(config: BigBirdPegasusConfig, weights: Weights, stream: Stream) -> Taps:
    """The transposed word embeddings, which are not scaled here."""
    words = weights[_WORDS]
    logits = np.empty((*stream.x.shape[:-1], len(words)))
    given = lossy(stream.x, stream.x.shape[-1])
    for start in range(0, len(words), _WORDS_AT_ONCE):
        some = slice(start, start + _WORDS_AT_ONCE)
        logits[..., some] = lossy(given @ lossy(words[some].T.astype(np.float64)))
    return {"logits": logits}


def _sequence_classification(config: BigBirdPegasusConfig, weights: Weights, stream: Stream) -> Taps:
    """Two dense layers on the decoder's state at the text's last end."""
    last = stream.x[np.arange(len(stream.x)), ends_of(config, stream)]
    inner = lossy(np.tanh(dense(weights, "classification_head.dense", last)))
    return {"logits": dense(weights, "classification_head.out_proj", inner)}


def _question_answering(config: BigBirdPegasusConfig, weights: Weights, stream: Stream) -> Taps:
    spans = dense(weights, "qa_outputs", stream.x)
    return {"start_logits": spans[..., 0], "end_logits": spans[..., 1]}


HEADS: dict[str, Callable[[BigBirdPegasusConfig, Weights, Stream], Taps]] = {
    "base": _nothing,
    "conditional-generation": _language_model,
    "causal-lm": _language_model,
    "sequence-classification": _sequence_classification,
    "qa": _question_answering,
}
