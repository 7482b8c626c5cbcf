"""The forms in which a layer runs: as it is, compiled without its taps, or computed again for the gradient.

torch has no counterpart: it compiles nothing unless it is asked to.

Legend: B batch, L length, D hidden, I inner, C parts of T tokens each.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax import Array
from jax import numpy as jnp

from bigbird_port.sparse.formulation import formulation


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
            """Return the sublayer's output [B, L, D], of some tokens at a time: [B, L, I] is never held whole."""
            tokens, D = math.prod(x_BLD.shape[:2]), x_BLD.shape[2]
            at_once = formulation("flax", jax.default_backend()).tokens_at_once
            chunks = 1 if at_once is None else -(-tokens // at_once)
            if chunks == 1:
                return super().feed_forward(x_BLD, deterministic)
            x_CTD = jnp.pad(x_BLD.reshape(tokens, D), ((0, -tokens % chunks), (0, 0))).reshape(chunks, -1, D)

            def some_tokens(own: Any, _: None, x_TD: Array) -> tuple[None, Array]:
                return None, layer.feed_forward(own, x_TD, deterministic)[0]

            run = nn.scan(some_tokens, variable_broadcast="params", split_rngs={"params": False, "dropout": True})
            _, output_CTD = run(self, None, x_CTD)
            return output_CTD.reshape(-1, D)[:tokens].reshape(x_BLD.shape), {}

    return LayerKinds(layer, Bare, nn.remat(layer, static_argnums=(8,)), nn.jit(Bare, static_argnums=(8,)))
