"""Ways in which a Flax model runs that this machine, or a plain call, would not choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from bigbird_port.sparse.formulation import FORMULATIONS

Way = Callable[[Any], AbstractContextManager[Any]]


@contextmanager
def small_chunks(user: Any) -> Iterator[None]:
    """Compute few scores at a time, few query blocks, and few tokens."""
    with _formulated(scores_at_once=64, blocks_at_once=2, tokens_at_once=8):
        yield


@contextmanager
def all_at_once(user: Any) -> Iterator[None]:
    """Compute everything at once, as on an accelerator."""
    with _formulated(heads_at_once=None, blocks_at_once=None, scores_at_once=None, tokens_at_once=None):
        yield


@contextmanager
def compiled(user: Any) -> Iterator[None]:
    """Compile the model with its inputs as arguments, so that their padding is not known."""
    import jax

    plain = user.model

    def call(*, params: Any, **given: Any) -> Any:
        arrays = {name: x for name, x in given.items() if hasattr(x, "dtype")}
        flags = {name: x for name, x in given.items() if name not in arrays}
        return jax.jit(lambda params, arrays: plain(**arrays, params=params, **flags))(params, arrays)

    user.model = call
    try:
        yield
    finally:
        user.model = plain


@contextmanager
def checkpointing(user: Any) -> Iterator[None]:
    """Compute layers again for the gradient."""
    user.model.gradient_checkpointing_enable()
    try:
        yield
    finally:
        user.model.gradient_checkpointing_disable()


@contextmanager
def training(user: Any) -> Iterator[None]:
    """Run as in training, with a fixed key of dropout."""
    import functools

    import jax

    plain = user.model
    user.model = functools.partial(plain, train=True, dropout_rng=jax.random.key(0))
    try:
        yield
    finally:
        user.model = plain


@contextmanager
def _formulated(**fields: Any) -> Iterator[None]:
    """Another formulation. Layers that are compiled already hold the usual one."""
    from models_flax.bigbird import encoder
    from models_flax.bigbird.layer import BigBirdLayer
    from models_flax.kinds import layer_kinds

    own = FORMULATIONS["flax", "cpu"]
    with (
        mock.patch.dict(FORMULATIONS, {("flax", "cpu"): replace(own, **fields)}),
        mock.patch.object(encoder, "_KINDS", layer_kinds(BigBirdLayer)),
    ):
        yield


WAYS: dict[str, Way] = {
    "small-chunks": small_chunks,
    "all-at-once": all_at_once,
    "compiled": compiled,
    "checkpointing": checkpointing,
    "training": training,
}
