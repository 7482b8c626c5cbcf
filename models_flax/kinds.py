"""The forms in which a layer runs: as it is, compiled without its taps, or computed again for the gradient.

torch has no counterpart: it compiles nothing unless it is asked to.

Legend: B batch, L length, D hidden, I inner, C parts of T tokens each.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax import Array, lax
from jax import numpy as jnp

from bigbird_port.sparse.formulation import Formulation
from models_flax.target import by_target


class LayerKinds(NamedTuple):
    """The classes of one kind of layer.

    bare: without its taps. checkpointed: keeps a layer's input only, and runs the layer again for the gradient.
    compiled: the bare one, compiled where it first runs, and never again for the same shapes: twelve layers take as
    long as one.
    """

    plain: type[Any]
    bare: type[Any]
    checkpointed: type[Any]
    compiled: type[Any]


def layer_kinds(layer: Any) -> LayerKinds:
    """Return the forms of a layer, whose ninth argument (self counted) is ``deterministic``.

    The layer returns its output and its taps, and has a method feed_forward(x, deterministic) that does as well.
    """

    class Bare(layer):
        """A layer without its taps, which a compiled program would have to keep."""

        def __call__(self, *arguments: Any) -> tuple[Array, dict[str, Array]]:
            """Return the layer's output [B, L, D] and no taps."""
            return super().__call__(*arguments)[0], {}

        def feed_forward(self, x_BLD: Array, deterministic: bool) -> tuple[Array, dict[str, Array]]:
            """Return the sublayer's output [B, L, D], of some tokens at a time, as the target has it."""
            if self.is_initializing():
                return super().feed_forward(x_BLD, deterministic)
            tokens, (unbound, variables) = math.prod(x_BLD.shape[:2]), self.unbind()
            rng = None if deterministic or not self.has_rng("dropout") else self.make_rng("dropout")

            def choose(how: Formulation) -> _Sublayer:
                parts = 1 if how.tokens_at_once is None else -(-tokens // how.tokens_at_once)
                return _Sublayer(unbound, layer, deterministic, parts)

            output_BLD = by_target(choose, _fed_forward, variables, rng, x_BLD)
            return output_BLD, {}

    return LayerKinds(layer, Bare, nn.remat(layer, static_argnums=(8,)), nn.jit(Bare, static_argnums=(8,)))


class _Sublayer(NamedTuple):
    """The feed-forward sublayer of a layer, whose method is ``kind``'s, and in how many parts the tokens come."""

    layer: Any
    kind: type[Any]
    deterministic: bool
    parts: int


def _fed_forward(sublayer: _Sublayer, variables: Any, rng: Array | None, x_BLD: Array) -> Array:
    """The sublayer's output [B, L, D], of one part of the tokens after the other: [B, L, I] is never held whole."""
    layer, kind, deterministic, parts = sublayer

    def run(given: tuple[Array | None, Array]) -> Array:
        rng, x = given
        rngs = None if rng is None else {"dropout": rng}
        output: Array = layer.apply(variables, x, deterministic, method=kind.feed_forward, rngs=rngs)[0]
        return output

    if parts == 1:
        return run((rng, x_BLD))
    tokens, D = math.prod(x_BLD.shape[:2]), x_BLD.shape[2]
    x_CTD = jnp.pad(x_BLD.reshape(tokens, D), ((0, -tokens % parts), (0, 0))).reshape(parts, -1, D)
    output_CTD = lax.map(run, (None if rng is None else jax.random.split(rng, parts), x_CTD))
    return output_CTD.reshape(-1, D)[:tokens].reshape(x_BLD.shape)
