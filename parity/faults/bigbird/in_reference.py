"""Faults in the code of the float64 reference: the same as in the twins' code, written in NumPy.

They say whether a fault changes anything. Each function returns a context in which the reference has the fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from parity.faults.inject import InReference
from parity.reference import attention as reference_attention
from parity.reference import model as reference
from parity.reference.attention import Visibility


def reference_scale(power: float) -> InReference:
    """Multiply the reference's queries by head size ** power."""
    right = reference_attention._probabilities
    return lambda: mock.patch.object(
        reference_attention, "_probabilities", lambda q, k, bias: right(q * q.shape[-1] ** power, k, bias)
    )


def reference_scaled_bias() -> AbstractContextManager[Any]:
    """Divide the reference's penalty by the square root of the head size, but not the logarithm of a block's count."""
    right = reference_attention._probabilities

    def faulty(q: np.ndarray, k: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return right(q, k, np.where(bias < -1e9, bias / math.sqrt(q.shape[-1]), bias))

    return mock.patch.object(reference_attention, "_probabilities", faulty)


def reference_half_softmax() -> AbstractContextManager[Any]:
    """Round the reference's probabilities to half precision. Those of a block that is listed twice are added first."""
    right = reference_attention._probabilities
    return mock.patch.object(
        reference_attention,
        "_probabilities",
        lambda q, k, bias: right(q, k, bias).astype(np.float16).astype(np.float64),
    )


class _ZeroesBy(Visibility):
    """Sees by its own mask, and zeroes queries by another (None: none)."""

    def __init__(self, seen: Visibility, mask: np.ndarray, zeroed: np.ndarray | None) -> None:
        super().__init__(mask, seen.counts, seen.block_size, seen.causal)
        object.__setattr__(self, "zeroed", np.ones(mask.shape[:2]) if zeroed is None else zeroed.astype(np.float64))

    def live_queries(self) -> np.ndarray:
        factor: np.ndarray = vars(self)["zeroed"]
        return factor


def seen_as(change: Callable[[Visibility], Visibility]) -> InReference:
    """Change which keys the reference's queries see."""
    right = reference.Reference.visibility
    return lambda: mock.patch.object(
        reference.Reference, "visibility", lambda self, i, stream: change(right(self, i, stream))
    )


def without_penalty(seen: Visibility) -> Visibility:
    """Mask no key. Padded queries of block-sparse attention still give 0."""
    if seen.counts is None:
        return replace(seen, mask=seen.mask | True)
    return _ZeroesBy(seen, seen.mask | True, seen.mask)


def without_sparse_penalty(seen: Visibility) -> Visibility:
    """Mask no key of block-sparse attention."""
    return seen if seen.counts is None else without_penalty(seen)


def without_full_penalty(seen: Visibility) -> Visibility:
    """Mask no key of full attention."""
    return without_penalty(seen) if seen.counts is None else seen


def with_padded_queries(seen: Visibility) -> Visibility:
    """Let padded queries attend."""
    return _ZeroesBy(seen, seen.mask, None) if seen.counts is not None else seen


def looking_ahead(places: int) -> Callable[[Visibility], Visibility]:
    """Let causal attention see so many of the tokens that follow."""

    def change(seen: Visibility) -> Visibility:
        if not seen.causal or seen.mask.ndim == 3:
            return seen
        L = seen.mask.shape[-1]
        mask_BLL = seen.mask[:, None] & np.tril(np.ones((L, L), bool), min(places, L))
        return replace(seen, mask=mask_BLL, causal=False)

    return change


def reference_partial_block() -> AbstractContextManager[Any]:
    """Fill up the last block with zeros that count as keys."""
    right = reference_attention.attend

    def faulty(q: np.ndarray, k: np.ndarray, v: np.ndarray, seen: Visibility) -> np.ndarray:
        L, missing = q.shape[2], -q.shape[2] % seen.block_size
        if seen.counts is None or not missing:
            return right(q, k, v, seen)
        q, k, v = (np.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) for x in (q, k, v))
        mask = np.pad(seen.mask, ((0, 0), (0, missing)), constant_values=True)
        return right(q, k, v, replace(seen, mask=mask))[:, :L]

    return mock.patch.object(reference, "attend", faulty)
