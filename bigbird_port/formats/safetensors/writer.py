"""Plans of safetensors files, whole or in transformers' shards."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from bigbird_port.formats.file_plan import FilePlan, Planned
from bigbird_port.formats.shards import check_max_shard_size, split_into_shards
from bigbird_port.formats.tensorflow.builder import FileBuilder, literal_file, nbytes

# dtype -> its name in a header, in the library's order (enum Dtype): by it, backwards, tensors lie in a file.
_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
_ORDER = {name: i for i, name in enumerate(_DTYPES)}


@dataclass(frozen=True)
class SafetensorsFormat:
    """One safetensors file, or several and ``<file_name>.index.json`` where one would exceed ``max_shard_size``.

    Byte-identical to safetensors.numpy.save_file (up to the order of several metadata keys, which the library leaves
    to chance). metadata: strings for the header; None writes none. max_shard_size: bytes of values in a file.
    Sources: safetensors/src/tensor.rs of huggingface/safetensors; the index is that of save_pretrained in
    transformers/modeling_utils.py. Raises ValueError for a limit below 1.
    """

    metadata: Mapping[str, str] | None = None
    file_name: str = "model.safetensors"
    max_shard_size: int | None = None

    def __post_init__(self) -> None:
        check_max_shard_size(self.max_shard_size)

    def plan(self, tensors: Mapping[str, Planned]) -> list[FilePlan]:
        """Return the files, and the index where there are several; raises ValueError naming what has no such dtype."""
        shards = split_into_shards({name: nbytes(tensor) for name, tensor in tensors.items()}, self.max_shard_size)
        if len(shards) == 1:
            return [self._file(self.file_name, tensors)]
        path = PurePath(self.file_name)
        names = [f"{path.stem}-{i:05d}-of-{len(shards):05d}{path.suffix}" for i in range(1, len(shards) + 1)]
        files = [
            self._file(file, {name: tensors[name] for name in shard}) for file, shard in zip(names, shards, strict=True)
        ]
        return [*files, self._index(files, tensors)]

    def finish(self, tensors: Mapping[str, Planned], crc32c: Mapping[str, int]) -> list[FilePlan]:
        """Return nothing: no byte of the format depends on the values of all tensors."""
        return []

    def _file(self, file_name: str, tensors: Mapping[str, Planned]) -> FilePlan:
        for name, tensor in tensors.items():
            if tensor.dtype.name not in _DTYPES or name == "__metadata__":
                raise ValueError(
                    f"safetensors cannot hold {name} of dtype {tensor.dtype}: expected one of {', '.join(_DTYPES)} "
                    "under a name other than __metadata__"
                )
        names = sorted(tensors, key=lambda name: (-_ORDER[tensors[name].dtype.name], name))
        file = FileBuilder(file_name)
        file.literal(self._header({name: tensors[name] for name in names}))
        for name in names:
            file.slot(name, nbytes(tensors[name]))
        return file.plan()

    def _header(self, tensors: Mapping[str, Planned]) -> bytes:
        entries: dict[str, object] = {} if self.metadata is None else {"__metadata__": dict(self.metadata)}
        at = 0
        for name, tensor in tensors.items():
            end = at + nbytes(tensor)
            entries[name] = {
                "dtype": _DTYPES[tensor.dtype.name],
                "shape": list(tensor.shape),
                "data_offsets": [at, end],
            }
            at = end
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def _index(self, files: list[FilePlan], tensors: Mapping[str, Planned]) -> FilePlan:
        metadata = {
            "total_parameters": sum(math.prod(tensor.shape) for tensor in tensors.values()),
            "total_size": sum(map(nbytes, tensors.values())),
        }
        weight_map = {name: file.name for file in files for name in file.slots}
        text = json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"
        return literal_file(f"{self.file_name}.index.json", text.encode())
