"""Scores of every word, whose gradient passes by the tokens that have none.

Legend: R tokens of all texts, S those that are picked, D hidden, V vocabulary.
"""

from __future__ import annotations

import jax
from jax import Array, lax
from jax import numpy as jnp

_WORTH = 4  # tokens for one that is picked: how many there will be is not known when the program is compiled


def word_scores(x_BLD: Array, words_VD: Array, bias_V: Array | None = None) -> Array:
    """Return x words^T + bias, [..., V].

    A loss of masked words has no gradient at six tokens of seven. On a CPU the two products of the gradient then take
    these tokens alone, which is exact: the others' rows are 0. On a mesh of devices all tokens stay where they are.
    """
    if jax.sharding.get_abstract_mesh().empty:
        scores_BLV = _product(x_BLD.reshape(-1, x_BLD.shape[-1]), words_VD).reshape(*x_BLD.shape[:-1], -1)
    else:
        scores_BLV = x_BLD @ words_VD.T
    return scores_BLV if bias_V is None else scores_BLV + bias_V


@jax.custom_vjp
def _product(x_RD: Array, words_VD: Array) -> Array:
    return x_RD @ words_VD.T


def _forward(x_RD: Array, words_VD: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x_RD, words_VD), (x_RD, words_VD)


def _backward(kept: tuple[Array, Array], grad_RV: Array) -> tuple[Array, Array]:
    """The usual gradients; on a CPU of the rows that are not 0, where these are few."""
    return lax.platform_dependent(*kept, grad_RV, cpu=_gradient_of_few, default=_gradient)


def _gradient(x_RD: Array, words_VD: Array, grad_RV: Array) -> tuple[Array, Array]:
    return grad_RV @ words_VD, grad_RV.T @ x_RD


def _gradient_of_few(x_RD: Array, words_VD: Array, grad_RV: Array) -> tuple[Array, Array]:
    R = len(x_RD)
    S = -(-R // _WORTH)
    counts_R = (grad_RV != 0).any(axis=1)

    def few() -> tuple[Array, Array]:
        (rows,) = jnp.nonzero(counts_R, size=S, fill_value=R)
        grad_SV, x_SD = (x.at[rows].get(mode="fill", fill_value=0) for x in (grad_RV, x_RD))
        dx, dwords = _gradient(x_SD, words_VD, grad_SV)
        return jnp.zeros_like(x_RD).at[rows].set(dx, mode="drop"), dwords

    return lax.cond(counts_R.sum() <= S, few, lambda: _gradient(x_RD, words_VD, grad_RV))


_product.defvjp(_forward, _backward)
