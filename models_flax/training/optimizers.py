"""The original's three optimizers as optax transformations. None clips; optax's own rules of these names are others.

Each is a GradientTransformation: chain it, or let optax.inject_hyperparams make its numbers a part of the state.

Sources: bigbird/core/optimization.py of google-research/bigbird, utils/adafactor.py of tensorflow/tensor2tensor,
tensorflow/python/training/adam.py of tensorflow/tensorflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import optax
from jax import Array
from jax import numpy as jnp

Rate = float | Array | Callable[[Any], Any]
Tree = Any
_LEAST_SQUARE, _LEAST_SCALE = 1e-30, 1e-3  # of Adafactor's gradients, and of its weights


class MomentsState(NamedTuple):
    """The updates so far, and both moments, like the parameters. powers: of Adam's betas, for the next update."""

    step: Array
    m: Tree
    v: Tree
    powers: tuple[Array, ...] = ()


class FactorsState(NamedTuple):
    """The updates so far, and slots: row and column of a parameter with two axes or more, else v, by name."""

    step: Array
    slots: Tree


class AdamWeightDecay(optax.GradientTransformation):
    """Adam without correction of its bias, epsilon outside the root, and decay of the weight times the rate.

    learning_rate: a number, or a schedule of the updates so far. decays: tree of bools, or a function of the
    parameters that gives one: which of them decay; None: all.
    """

    def __new__(
        cls,
        learning_rate: Rate = 1e-4,
        b1: float = 0.9,
        b2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        decays: Tree | Callable[[Tree], Tree] | None = None,
    ) -> Self:
        def update(gradients: Tree, state: MomentsState, params: Tree) -> tuple[Tree, MomentsState]:
            moved = _moments(gradients, state, b1, b2, 1 - b1, 1 - b2)
            marked = decays(params) if callable(decays) else decays
            if marked is None:
                marked = jax.tree.map(lambda _: True, params)
            rate = _rate(learning_rate, state.step)

            def change(w: Array, m: Array, v: Array, decayed: bool) -> Array:
                u = m / (jnp.sqrt(v) + eps)
                return -rate * (u + weight_decay * w if decayed else u)

            return jax.tree.map(change, params, moved.m, moved.v, marked), moved

        return super().__new__(cls, _no_moments, update)


class Adafactor(optax.GradientTransformation):
    """Adafactor without momentum: factored wherever there are two axes, clipped at a root mean square of 1.

    The rate is multiplied by the weight's root mean square, at least 1e-3. Nothing decays.
    """

    def __new__(cls, learning_rate: Rate = 0.01) -> Self:
        def init(params: Tree) -> FactorsState:
            return FactorsState(jnp.zeros([], jnp.int32), jax.tree.map(_no_factors, params))

        def update(gradients: Tree, state: FactorsState, params: Tree) -> tuple[Tree, FactorsState]:
            kept = 1 - (state.step + 1).astype(jnp.float32) ** -0.8
            rate = _rate(learning_rate, state.step)
            leaves, tree = _flattened(params)
            slots = tree.flatten_up_to(state.slots)
            given = tree.flatten_up_to(gradients)
            pairs = [_factored(g, w, own, kept, rate) for g, w, own in zip(given, leaves, slots, strict=True)]
            changes, moved = (tree.unflatten(column) for column in zip(*pairs, strict=True))
            return changes, FactorsState(state.step + 1, moved)

        return super().__new__(cls, init, update)


class Adam(optax.GradientTransformation):
    """TensorFlow's Adam: the rate is corrected, and epsilon is added behind the correction. Nothing decays."""

    def __new__(cls, learning_rate: Rate = 1e-4, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> Self:
        one = np.float32(1)

        def init(params: Tree) -> MomentsState:
            return _no_moments(params)._replace(powers=(jnp.float32(b1), jnp.float32(b2)))

        def update(gradients: Tree, state: MomentsState, params: Tree = None) -> tuple[Tree, MomentsState]:
            beta1, beta2 = jnp.float32(b1), jnp.float32(b2)
            # 1 - beta is taken of the float32: with 0.999 that is 1.3e-5 less than 0.001
            moved = _moments(gradients, state, beta1, beta2, one - beta1, one - beta2)
            power1, power2 = state.powers
            rate = _rate(learning_rate, state.step) * jnp.sqrt(1 - power2) / (1 - power1)
            changes = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + eps), moved.m, moved.v)
            return changes, moved._replace(powers=(power1 * beta1, power2 * beta2))

        return super().__new__(cls, init, update)


def _flattened(tree: Tree) -> tuple[list[Array], Any]:
    return jax.tree.flatten(tree)


def _no_moments(params: Tree) -> MomentsState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return MomentsState(jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))


def _moments(gradients: Tree, state: MomentsState, beta1: Any, beta2: Any, new1: Any, new2: Any) -> MomentsState:
    """Move both moments on: m = beta1 m + new1 g, v = beta2 v + new2 g^2."""
    m = jax.tree.map(lambda m, g: beta1 * m + new1 * g, state.m, gradients)
    v = jax.tree.map(lambda v, g: beta2 * v + new2 * jnp.square(g), state.v, gradients)
    return state._replace(step=state.step + 1, m=m, v=v)


def _no_factors(parameter: Array) -> dict[str, Array]:
    if parameter.ndim < 2:
        return {"v": jnp.zeros_like(parameter)}
    return {"row": jnp.zeros_like(parameter[..., 0]), "column": jnp.zeros_like(parameter[..., 0, :])}


def _factored(
    gradient: Array, weight: Array, slots: dict[str, Array], kept: Array, rate: Any
) -> tuple[Array, dict[str, Array]]:
    """The change of one weight, and its slots behind it."""
    squares = jnp.square(gradient) + _LEAST_SQUARE
    means = {"row": lambda: squares.mean(-1), "column": lambda: squares.mean(-2), "v": lambda: squares}
    moved = {name: kept * slot + (1 - kept) * means[name]() for name, slot in slots.items()}
    if "v" in moved:
        update = gradient * jax.lax.rsqrt(moved["v"])
    else:
        row, column = moved["row"], moved["column"]
        scale = jax.lax.rsqrt(row / row.mean(-1, keepdims=True))
        update = gradient * scale[..., None] * jax.lax.rsqrt(column)[..., None, :]
    update = update / jnp.maximum(1.0, _root_mean_square(update))
    return -update * jnp.maximum(_root_mean_square(weight), _LEAST_SCALE) * rate, moved


def _root_mean_square(x: Array) -> Array:
    return jnp.sqrt(jnp.square(x).mean())


def _rate(given: Rate, step: Array) -> Any:
    return given(step) if callable(given) else given
