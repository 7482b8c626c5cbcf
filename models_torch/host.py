"""What the host must know of the values of a call's tensors: read from their device at once, because each read waits.

On a CPU there is nothing to read: whoever wants a value looks at it. Flax has no counterpart, because it reads its
inputs before they are on a device.

Legend: B batch, L length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models_torch.bigbird.losses import IGNORED
from models_torch.bigbird.tracing import is_traced

Extent = tuple[int, int]  # the least and the greatest value


class Look(NamedTuple):
    """What was read: the extent of each tensor of integers, in their order, and of each text one past its last token.

    ends: int64 [B]; None where the mask has not two axes.
    """

    extents: list[Extent]
    ends: np.ndarray | None


class _Beside:
    """Tensors of a call that its model does not see, such as labels, and their extents once they were read."""

    def __init__(self, tensors: list[Tensor], outer: _Beside | None) -> None:
        self.tensors: list[Tensor] = tensors if outer is None else tensors + outer.tensors
        self.extents: dict[int, Extent] = {} if outer is None else outer.extents


_beside: ContextVar[_Beside | None] = ContextVar("_beside", default=None)


def is_known(x: Tensor) -> bool:
    """Whether x has values to look at: neither a trace nor a CUDA graph, which is captured, has any."""
    unknown = torch.compiler.is_compiling() or is_traced() or x.is_meta
    return not (unknown or (x.is_cuda and is_capturing()))


def is_capturing() -> bool:
    """Whether a CUDA graph is being captured, which runs again without the host."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def is_far(x: Tensor) -> bool:
    """Whether x has values, on a device for which the host would have to wait."""
    return is_known(x) and x.device.type != "cpu"


@contextmanager
def together(values: Iterable[Any]) -> Iterator[None]:
    """While it lasts, what is looked at in a call brings the extents of these integers along (others are left out)."""
    far = [x for x in values if isinstance(x, Tensor) and x.numel() and _is_integer(x) and is_far(x)]
    token = _beside.set(_Beside(far, _beside.get())) if far else None
    try:
        yield
    finally:
        if token is not None:
            _beside.reset(token)


def look(ids: list[Tensor], mask: Tensor) -> Look:
    """Read the extents of ``ids`` and the ends of the texts of a bool mask [B, L], all at once."""
    beside = _beside.get()
    labels = [] if beside is None else beside.tensors
    counted = [x.where(x != IGNORED, 0) for x in labels]
    ends = [(torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask).amax(1)] if mask.ndim == 2 else []
    found = _read(torch.cat([torch.stack(x.aminmax()).long() for x in (*ids, *counted)] + ends))
    pairs = list(zip(found[: 2 * len(ids + labels) : 2], found[1 : 2 * len(ids + labels) : 2], strict=True))
    if beside is not None:
        beside.extents |= {id(x): pair for x, pair in zip(labels, pairs[len(ids) :], strict=True)}
    return Look(pairs[: len(ids)], np.array(found[2 * len(pairs) :]) if ends else None)


def extent_beside(x: Tensor) -> Extent | None:
    """Return the extent of what counts in one of together's tensors, or a view of one; None if it was not read."""
    beside = _beside.get()
    if beside is None:
        return None
    return beside.extents.get(id(x)) or beside.extents.get(id(x._base))


def _is_integer(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def _read(numbers: Tensor) -> list[int]:
    """The only place where a forward makes the host wait."""
    return numbers.tolist()
