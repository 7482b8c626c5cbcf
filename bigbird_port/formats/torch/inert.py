"""Read a torch pickle that names foreign classes without building them: a placeholder stands for each, nothing runs.

Training checkpoints (of Lightning, say) hold states of callbacks and options beside the weights. torch refuses such
files with weights_only. Here the unpickler is given the few makers that weights need and, for every other name, a class
that takes anything and does nothing.
"""

from __future__ import annotations

import mmap
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn, cast

from bigbird_port.files.reading import open_regular


class Inert:
    """What stands for an object of a foreign class: it takes every argument, state and item, and keeps none."""

    __slots__ = ()

    def __new__(cls, *arguments: Any, **named: Any) -> Inert:
        """Make one, whatever it is made from."""
        return object.__new__(cls)

    def __call__(self, *arguments: Any, **named: Any) -> Inert:
        """Stand for the result of a call too."""
        return self

    def __setstate__(self, state: Any = None) -> None:
        """Take a state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take an item."""

    def append(self, value: Any) -> None:
        """Take an element."""

    def extend(self, values: Any) -> None:
        """Take elements."""

    def add(self, value: Any) -> None:
        """Take an element."""


class _Maker:
    """One of the functions that weights need, behind a wall: a pickle can call it and not change it."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError("it changes a function")

    def __setstate__(self, state: Any = None) -> NoReturn:
        raise pickle.UnpicklingError("it changes a function")


def _rebuilt(name: str) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        import torch

        # Behind the data and the flag of gradients come hooks, which no weight needs, and marks of lazy views.
        count = 2 if name == "_rebuild_parameter" else 5
        if any(arguments[count + 1 :]):
            raise pickle.UnpicklingError("a tensor in it is a lazy view")
        return getattr(torch._utils, name)(*arguments[:count], OrderedDict())

    return make


_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): lambda *items: OrderedDict(*items),
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt("_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"): _rebuilt("_rebuild_parameter"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        make = _MAKERS.get((module, name))
        return _Maker(make) if make else Inert


def load_beside_foreign(path: Path, is_zip: bool) -> Any:
    """Return what a torch file holds, with Inert where it names anything but tensors and plain values.

    torch finds the storages; every name in the pickles goes through ``_Unpickler``. Raises whatever torch, zipfile and
    pickle raise for a damaged file.
    """
    import torch

    options: dict[str, Any] = {"map_location": "cpu", "weights_only": False, "pickle_module": _PICKLE}
    if not is_zip:  # as before release 1.6; what has no number of a file is never taken for a tar, and unpacked
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return torch.load(cast(IO[bytes], data), **options)
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        if any(name.endswith("constants.pkl") for name in archive.namelist()):
            raise pickle.UnpicklingError("a program (TorchScript)")  # which torch.load would hand to its interpreter
    return torch.load(path, mmap=True, **options)


# What torch takes for the module pickle.
_PICKLE = SimpleNamespace(
    __name__="pickle",
    Unpickler=_Unpickler,
    UnpicklingError=pickle.UnpicklingError,
    load=lambda file, **options: _Unpickler(file, **options).load(),
)
