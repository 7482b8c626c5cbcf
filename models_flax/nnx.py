"""The models as modules of flax.nnx: with their weights, for nnx.Optimizer, nnx.jit and whatever else nnx offers."""

from __future__ import annotations

from typing import Any

from flax import nnx
from jax import numpy as jnp

from models_flax.pretrained.model import FlaxBigBirdPreTrainedModel, Params


def to_nnx(model: FlaxBigBirdPreTrainedModel, seed: int = 0) -> Any:
    """Return the model's linen module as an nnx.Module that holds the model's parameters.

    It is called as the linen module: with ids [B, L] and the other arrays, and ``deterministic=False`` for dropout,
    which is drawn from ``seed`` and goes on from call to call. Nothing is initialised anew. Raises ValueError for a
    model without parameters.
    """
    params = model._params_for(None)

    def bare() -> Any:
        streams = nnx.Rngs(params=seed, dropout=seed + 1, indices=seed + 2)
        return nnx.bridge.ToNNX(model.module, rngs=streams)

    bridged = nnx.eval_shape(lambda: nnx.bridge.lazy_init(bare(), jnp.zeros(model.smallest_input, jnp.int32)))
    nnx.update(bridged, params)
    nnx.update(bridged, nnx.state(bare(), nnx.RngState))
    return bridged


def to_params(bridged: Any) -> Params:
    """Return the parameters of what to_nnx gave, as linen has them: a FlaxBigBird model's ``params``."""
    params: Params = nnx.to_pure_dict(nnx.state(bridged, nnx.Param))
    return params
