"""What is kept on a device from call to call, because to bring it there again would make the device wait.

What is kept is made of its key alone and never changed, so that a call gives the same with and without it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from models_torch import host

LIMIT = 64 << 20  # bytes, on all devices together

_Kept = TypeVar("_Kept")
_kept: OrderedDict[Hashable, Any] = OrderedDict()  # the one that was longest not used first
_pinned: dict[Hashable, Any] = {}  # a CUDA graph reads these where they lie
_lock = threading.Lock()


def on_device(key: tuple[Any, torch.device, Any], make: Callable[[], _Kept]) -> _Kept:
    """Return what ``make`` makes, the same for the same key, whose second part is the device; on a CPU made anew.

    Raises ValueError where a CUDA graph is being captured, into which nothing can be copied from the host.
    """
    if key[1].type == "cpu":
        return make()
    capturing = host.is_capturing()
    with _lock:
        if key not in _kept:
            if capturing:
                raise ValueError(
                    "a CUDA graph is being captured, but the key lists of this length are not on the device yet: call "
                    "the model once with inputs of the same shape before the capture"
                )
            _keep(key, make)
        _kept.move_to_end(key)
        found = _kept[key]
        if capturing:
            _pinned[key] = found
    return found


def _keep(key: Hashable, make: Callable[[], Any]) -> None:
    with torch.inference_mode(False):  # a tensor made in inference could not be used in training
        _kept[key] = make()
    while len(_kept) > 1 and size_of(*_kept.values()) > LIMIT:
        _kept.popitem(last=False)


def size_of(*values: Any) -> int:
    """Return the bytes of all tensors in them."""
    return sum(x.numel() * x.element_size() for x in tree_leaves(values) if isinstance(x, Tensor))


def forget() -> None:
    """Drop everything that is kept."""
    with _lock:
        _kept.clear()
        _pinned.clear()
