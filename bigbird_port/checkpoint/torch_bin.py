"""Reader of torch's own weight files (pytorch_model.bin) and of the shards that a transformers index names.

Such a file is a pickle, which could run any program: torch reads it with weights_only, which runs none.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.checkpoint.dtypes import DTYPES
from bigbird_port.checkpoint.limits import MAX_INDEX_BYTES
from bigbird_port.checkpoint.links import file_size
from bigbird_port.checkpoint.runs import check_name
from bigbird_port.checkpoint.safetensors_file import check_count, check_weight_map, read_weight_map
from bigbird_port.checkpoint.store import PIECE_BYTES, Stored

if TYPE_CHECKING:
    import torch


class TorchBin:
    """One file as a Store. Raises ValueError naming the file and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.files: tuple[Path, ...] = (path,)
        self._values = _load(path)
        self.tensors: Mapping[str, Stored] = {name: _stored(values) for name, values in self._values.items()}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the values of one tensor as Store.pieces does."""
        dtype = self.tensors[name].dtype
        if dtype is None:
            raise ValueError(f"{self.files[0]}: {name} is {self.tensors[name].type_name}: expected a numeric array")
        flat = self._values[name].contiguous().reshape(-1)
        size = PIECE_BYTES // dtype.itemsize
        for start in range(0, len(flat), size):
            piece = flat[start : start + size]
            if dtype == DTYPES["bfloat16"]:  # which torch does not hand to NumPy
                yield piece.view(_torch().int16).numpy().copy().view(dtype)
            else:
                yield piece.numpy().copy()


class TorchBinShards:
    """The shards of an index (pytorch_model.bin.index.json), which lie beside it, as one Store.

    Raises ValueError naming the file and what is wrong with it.
    """

    def __init__(self, index: Path) -> None:
        names = read_weight_map(index)
        shards = [TorchBin(index.parent / name) for name in sorted(set(names.values()))]
        self._owners: dict[str, TorchBin] = {}
        for shard in shards:
            for name in shard.tensors:
                if name in self._owners:
                    first = self._owners[name].files[0].name
                    raise ValueError(f"{index}: {name} is both in {first} and in {shard.files[0].name}")
                self._owners[name] = shard
            check_count(len(self._owners), index)
        check_weight_map(names, {name: owner.files[0].name for name, owner in self._owners.items()}, index)
        self.files = (index, *(shard.files[0] for shard in shards))
        self.tensors: Mapping[str, Stored] = {name: owner.tensors[name] for name, owner in self._owners.items()}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the values of one tensor as Store.pieces does."""
        return self._owners[name].pieces(name)


def _torch() -> Any:
    import torch

    return torch


def _load(path: Path) -> dict[str, torch.Tensor]:
    import torch

    size = file_size(path)
    is_zip = _check_zip(path, size)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: damaged, or it holds more than weights: it was not executed; save the weights alone, "
            "as safetensors or by torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # torch raises nearly every type for a damaged file
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path}: not a torch weight file, or damaged: {lines[0][:200]}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: it holds a {type(values).__name__}: expected a dict of tensors")
    check_count(len(values), path)
    for name, value in values.items():
        _check_tensor(path, name, value, size)
    return {name: value.detach().resolve_neg() for name, value in values.items()}


def _check_zip(path: Path, size: int) -> bool:
    """Whether a file is a zip; raises ValueError if it would unpack to more than it is."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises several types for a damaged file
        raise ValueError(f"{path}: a damaged zip file: {error}") from None
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"{path}: a zip file with compressed members, which torch does not write")
    if sum(member.file_size for member in members) > size:
        raise ValueError(f"{path}: a zip file whose members are larger than itself: damaged")
    if any(member.filename.endswith("data.pkl") and member.file_size > MAX_INDEX_BYTES for member in members):
        raise ValueError(f"{path}: its data.pkl has more than {MAX_INDEX_BYTES} bytes")
    return True


def _check_tensor(path: Path, name: object, value: object, size: int) -> None:
    import torch

    if not isinstance(name, str):
        raise ValueError(f"{path}: a key in it is a {type(name).__name__}: expected the name of a tensor")
    try:
        check_name(name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{path}: {name} is a {type(value).__name__}: expected a tensor; save the weights alone")
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ValueError(f"{path}: {name} is sparse, quantised or on another device: expected a plain tensor")
    if math.prod(value.shape) * value.element_size() > size:  # a view can repeat its values without end
        raise ValueError(f"{path}: {name} is larger than the file: damaged")


def _stored(values: torch.Tensor) -> Stored:
    name = str(values.dtype).removeprefix("torch.")
    shape = tuple(values.shape)
    return Stored(DTYPES[name], shape) if name in DTYPES else Stored(None, shape, f"of type {name}")
