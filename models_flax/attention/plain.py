"""What attention computes: softmax(q k^T / sqrt(H) + bias) v, and the bias that a mask becomes.

Everything else in this room is about which queries meet which keys, and about time and memory.

Legend: L queries, K keys, H head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from jax import Array, lax
from jax import numpy as jnp
from jax.typing import DTypeLike


def attend(
    q_LH: Array, k_KH: Array, v_KH: Array, bias_LK: Array, dropout: Callable[[Array], Array] | None = None
) -> Array:
    """Return softmax(q k^T / sqrt(H) + bias) v, [..., L, H]; leading axes broadcast, ``bias`` is mask_bias's.

    Scores and their softmax are float32 (at least) even for half-precision inputs.
    """
    if dropout is None:
        return attend_in_part(q_LH, k_KH, v_KH, bias_LK)[0]
    return dropout(jax.nn.softmax(scores(q_LH, k_KH, bias_LK), axis=-1)).astype(v_KH.dtype) @ v_KH


def scores(q_LH: Array, k_KH: Array, bias_LK: Array) -> Array:
    """Return q k^T / sqrt(H) + bias, [..., L, K]."""
    scaled_LH, dtype = q_LH / math.sqrt(q_LH.shape[-1]), at_least_float32(q_LH)
    return jnp.matmul(scaled_LH, k_KH.swapaxes(-1, -2), preferred_element_type=dtype) + bias_LK


def attend_in_part(q_LH: Array, k_KH: Array, v_KH: Array, bias_LK: Array) -> tuple[Array, Array]:
    """Return attend's result, and the log of the sum of all weights, [..., L]: what it weighs beside other keys."""
    scores_LK = scores(q_LH, k_KH, bias_LK)
    largest_L1 = lax.stop_gradient(scores_LK.max(axis=-1, keepdims=True))
    weights_LK = jnp.exp(scores_LK - largest_L1)
    sum_L1 = weights_LK.sum(axis=-1, keepdims=True)
    # Normalising after the value product spares a pass over the weights.
    values_LH = jnp.matmul(weights_LK.astype(v_KH.dtype), v_KH, preferred_element_type=scores_LK.dtype)
    return (values_LH / sum_L1).astype(v_KH.dtype), (largest_L1 + jnp.log(sum_L1))[..., 0]


def mask_bias(allowed: Array, dtype: DTypeLike) -> Array:
    """Return 0 where ``allowed`` and else a number so low that exp gives 0; a row without any key weighs all alike.

    Half of the lowest number, so that adding a score does not overflow to -inf, whose softmax would be NaN.
    """
    return jnp.where(allowed, 0.0, jnp.finfo(dtype).min / 2).astype(dtype)


def at_least_float32(x: Array) -> DTypeLike:
    """Return the type of sums over ``x``."""
    return jnp.promote_types(x.dtype, jnp.float32)
