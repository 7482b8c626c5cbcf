"""Reader of torch's own weight files (pytorch_model.bin) and of the shards that a transformers index names.

Such a file is a pickle, which could run any program: torch reads it with weights_only, which runs none. What lies
beside the weights in a training checkpoint (a step, options, an optimizer's state) is listed, and of foreign classes
nothing is built.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.files.reading import open_regular
from bigbird_port.formats.dtypes import DTYPES
from bigbird_port.formats.limits import MAX_INDEX_BYTES
from bigbird_port.formats.links import file_size
from bigbird_port.formats.safetensors.reader import check_count, check_weight_map, read_weight_map
from bigbird_port.formats.store import PIECE_BYTES, Stored
from bigbird_port.formats.torch.inert import load_beside_foreign
from bigbird_port.formats.torch.nested import flatten
from bigbird_port.formats.torch.pickle_bounds import bounded_opcodes
from bigbird_port.installed import need

if TYPE_CHECKING:
    import torch


class TorchBin:
    """One file as a Store. Raises ValueError naming the file and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.files: tuple[Path, ...] = (path,)
        self._values, others = _load(path)
        self.tensors: Mapping[str, Stored] = {name: _stored(values) for name, values in self._values.items()} | others

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


# What torch.save(model.state_dict(), FILE) names: module and name.
_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|"
    r"torch (?!Untyped|Typed)[A-Za-z0-9]+Storage"
)


# What pickle and pickletools say of a pickle without its end.
_PICKLE_ENDS = re.compile(r"exhausted before seeing STOP|not enough data|Ran out of input|expected \d+ bytes in a")


def _torch() -> Any:
    import torch

    return torch


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Stored]]:
    """The tensors of a file, and what else it holds."""
    size = file_size(path)
    need(f"{path}: reading one of torch's own files", "torch")
    root, foreign = _unpickle(path)
    if not isinstance(root, (dict, list, tuple)) and not foreign:
        raise ValueError(
            f"{path}: it holds a {type(root).__name__}, expected a dict of tensors: save one by "
            "torch.save(model.state_dict(), FILE)"
        )
    try:
        values, others = flatten(root)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if foreign and not values:
        raise ValueError(_more_than_weights(path, foreign))
    check_count(len(values) + len(others), path)
    for name, value in values.items():
        _check_tensor(path, name, value, size)
    return {name: value.detach().resolve_neg() for name, value in values.items()}, others


def _unpickle(path: Path) -> tuple[Any, str | None]:
    """What a file holds, and the first foreign thing that it names: placeholders stand for such."""
    import torch

    try:
        with open_regular(path) as file:
            is_zip = file.read(4) == b"PK\3\4"  # as torch decides: a zip may also hang behind a pickle
        foreign = _foreign_global(_pickles_of(path, is_zip))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # of damaged files
            if foreign is None:
                if path.suffix == ".safetensors":  # from which torch would conclude what is in it
                    with open_regular(path) as file:
                        return torch.load(file, map_location="cpu", weights_only=True), None
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip), None
            return load_beside_foreign(path, is_zip), foreign
    except pickle.UnpicklingError as error:
        foreign = "nothing that torch reads as weights" if foreign is None else str(error)
    except Exception as error:  # torch, zipfile and pickletools raise nearly every type for a damaged file
        raise ValueError(f"{path}: not a torch weight file, or damaged: {_damage(error, file_size(path))}") from None
    raise ValueError(_more_than_weights(path, foreign))


def _damage(error: Exception, size: int) -> str:
    """What is wrong with a damaged file of ``size`` bytes: how much of it lacks, where torch or pickle tells that."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if more := re.match(r"unexpected EOF, expected (\d+) more bytes", line):
        return f"truncated: it has {size} bytes, and the tensor at its end needs {more[1]} more: fetch it again"
    if isinstance(error, EOFError) or _PICKLE_ENDS.search(line):
        return f"truncated: it has {size} bytes, and ends before its weights begin: fetch it again"
    return line[:200]


def _more_than_weights(path: Path, foreign: str) -> str:
    if re.match(r"numpy\b", foreign):
        return (
            f"{path}: expected tensors, found NumPy arrays in a pickle (it names {foreign[:80]}), which is not "
            "executed: save them as safetensors: safetensors.numpy.save_file(ARRAYS, 'model.safetensors')"
        )
    return (
        f"{path}: it holds more than weights, or is damaged: it was not executed; save the weights alone, as "
        f"safetensors or by torch.save(model.state_dict(), FILE); found {foreign[:80]}"
    )


def _pickles_of(path: Path, is_zip: bool) -> bytes | mmap.mmap:
    """The pickle of a zip, or the file whose head is the pickles; raises ValueError if it would unpack to more."""
    if not is_zip:
        with open_regular(path) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it has compressed members, which torch does not write")
        pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or len({member.filename for member in members}) < len(members):
            raise ValueError("expected one data.pkl, and no name twice")
        if pickles[0].file_size > min(MAX_INDEX_BYTES, path.stat().st_size):
            raise ValueError(f"its data.pkl has {pickles[0].file_size} bytes")
        return archive.read(pickles[0])


def _foreign_global(data: bytes | mmap.mmap) -> str | None:
    """The first thing that the pickles name which no weights need.

    torch would refuse what runs programs; but what it takes for harmless, such as a bytearray of 2**40 bytes, is not.
    """
    file: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    # Before release 1.6: a magic number, the protocol, the system, the weights and the storages' keys.
    for _ in range(1 if isinstance(data, bytes) else 5):
        for opcode, argument in bounded_opcodes(file):
            if opcode.name == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
                return str(argument)
            if opcode.name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                return opcode.name
    return None


def _check_tensor(path: Path, name: str, value: torch.Tensor, size: int) -> None:
    import torch

    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ValueError(f"{path}: {name} is sparse, quantised or on another device: expected a plain tensor")
    if math.prod(value.shape) * value.element_size() > size:  # a view can repeat its values without end
        raise ValueError(f"{path}: {name} is larger than the file: damaged")


def _stored(values: torch.Tensor) -> Stored:
    name = str(values.dtype).removeprefix("torch.")
    shape = tuple(values.shape)
    return Stored(DTYPES[name], shape) if name in DTYPES else Stored(None, shape, f"of type {name}")
