"""BigBird-Pegasus' faults in the code of the float64 reference: the same as in the twins' code, written in NumPy.

Each function returns a context in which the reference has the fault.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import numpy as np

from parity.reference.attention import Visibility
from parity.reference.losses import Term
from parity.reference.pegasus import heads, losses, writing
from parity.reference.pegasus.model import Reference

Context = AbstractContextManager[Any]


def scaled_twice() -> Context:
    """Multiply word embeddings twice."""
    return mock.patch.object(Reference, "scale", lambda self: float(self.config.d_model))


def output_scaled() -> Context:
    """Scale the output layer's embeddings."""
    name = "conditional-generation"
    right = heads.HEADS[name]
    return mock.patch.dict(
        heads.HEADS,
        {name: lambda config, *rest: {tap: x * math.sqrt(config.d_model) for tap, x in right(config, *rest).items()}},
    )


def numerator_masked() -> Context:
    """Leave padding out of the numerator."""
    right = losses.smoothed

    def faulty(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> Term:
        real = labels > 0
        own = right(logits[real][None], labels[real][None], smoothing)
        gradient = np.zeros(logits.shape)
        gradient[real] = own.gradients["logits"][0]
        return Term(own.value, {"logits": gradient})

    return mock.patch.object(losses, "smoothed", faulty)


def looking_ahead() -> Context:
    """Let the decoder see the next token."""

    def faulty(self: Reference, stream: Any) -> Visibility:
        B, T = stream.x.shape[:2]
        seen = np.broadcast_to(np.tril(np.ones((T, T), bool), 1), (B, T, T))
        return Visibility(seen, None, self.config.block_size, causal=False)

    return mock.patch.object(Reference, "causal", faulty)


def cross_mask_dropped() -> Context:
    """Let cross-attention see padding."""
    right = Reference.crossed

    def faulty(self: Reference, stream: Any) -> Visibility:
        seen = right(self, stream)
        return Visibility(np.ones(seen.mask.shape, bool), None, seen.block_size, causal=False)

    return mock.patch.object(Reference, "crossed", faulty)


def other_penalty() -> Context:
    """Divide by length ** alpha."""
    return mock.patch.object(writing, "penalty", lambda length, alpha: float(length**alpha))


def unfinished_normalised() -> Context:
    """Normalise beams that have no end."""
    right = writing.penalty
    return mock.patch.object(writing, "unfinished", lambda sums, T, alpha: sums / right(T, alpha))
