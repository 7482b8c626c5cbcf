"""Ways in which a torch model runs that this machine, or a plain call, would not choose."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from bigbird_port.sparse.formulation import FORMULATIONS

Way = Callable[[Any], AbstractContextManager[Any]]


@contextmanager
def onednn(user: Any) -> Iterator[None]:
    """Make every product of a query block with its keys in oneDNN, whatever is faster."""
    from models_torch.attention import onednn as products

    own = FORMULATIONS["torch", "cpu"]
    with (
        mock.patch.object(products, "faster", products.takes),
        mock.patch.dict(FORMULATIONS, {("torch", "cpu"): replace(own, onednn_from=1)}),
    ):
        yield


@contextmanager
def fast_linears(user: Any) -> Iterator[None]:
    """Run linear layers from weights that oneDNN has laid out."""
    from models_torch.inference import fast_linears as fast

    with fast(user.model):
        yield


@contextmanager
def small_chunks(user: Any) -> Iterator[None]:
    """Compute few scores at a time, and few query blocks."""
    with _formulated(scores_at_once=64, blocks_at_once=2):
        yield


@contextmanager
def all_at_once(user: Any) -> Iterator[None]:
    """Compute everything at once, in the framework's own fused attention: as on an accelerator."""
    with _formulated(heads_at_once=None, blocks_at_once=None, fused=True, scores_at_once=None):
        yield


@contextmanager
def compiled(user: Any) -> Iterator[None]:
    """Trace the model as a compiler does, and run the graph."""
    import torch

    model = user.model
    torch.compiler.reset()
    user.model = torch.compile(model, backend="aot_eager")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a compiler says of caches that it passes by
            yield
    finally:
        user.model = model
        torch.compiler.reset()


@contextmanager
def autocast(user: Any) -> Iterator[None]:
    """Compute products in bfloat16, all else in float32."""
    import torch

    with torch.autocast(user.witness.device.type, torch.bfloat16):
        yield


@contextmanager
def checkpointing(user: Any) -> Iterator[None]:
    """Train, and compute layers again for the gradient."""
    user.model.train()
    user.model.gradient_checkpointing_enable()
    try:
        yield
    finally:
        user.model.gradient_checkpointing_disable()
        user.model.eval()


@contextmanager
def training(user: Any) -> Iterator[None]:
    """Run as in training."""
    user.model.train()
    try:
        yield
    finally:
        user.model.eval()


def _formulated(**fields: Any) -> AbstractContextManager[Any]:
    own = FORMULATIONS["torch", "cpu"]
    return mock.patch.dict(FORMULATIONS, {("torch", "cpu"): replace(own, **fields)})


WAYS: dict[str, Way] = {
    "onednn": onednn,
    "fast-linears": fast_linears,
    "small-chunks": small_chunks,
    "all-at-once": all_at_once,
    "compiled": compiled,
    "autocast": autocast,
    "checkpointing": checkpointing,
    "training": training,
}
