"""The head in float64. B batch, L length, D hidden, C labels."""

import numpy as np

from parity.reference.losses import Term
from parity.reference.operations import dense


def _share(stream):
    """What of the mean each token is, [B, L, 1]."""
    real_BL1 = stream.given.mask[..., None]
    return real_BL1 / real_BL1.sum(1, keepdims=True)


def head_taps(config, weights, stream):
    return {"logits": dense(weights, "regressor", (stream.x * _share(stream)).sum(1))}


def loss_terms(config, taps, labels):
    error_BC = taps["logits"] - labels["labels"].reshape(taps["logits"].shape)
    return {"loss": Term(float(np.square(error_BC).mean()), {"logits": 2 * error_BC / error_BC.size})}


def head_backward(back, stream):
    mean_BD = (stream.x * _share(stream)).sum(1)
    return back.dense("regressor", mean_BD, back.taps["logits"])[:, None] * _share(stream)
