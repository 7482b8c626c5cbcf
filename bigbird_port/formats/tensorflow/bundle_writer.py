"""Plans of TensorFlow checkpoints (the TensorBundle format), without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bigbird_port.formats.file_plan import FilePlan, Planned, Segment
from bigbird_port.formats.runs import masked_crc32c
from bigbird_port.formats.shards import check_max_shard_size, split_into_shards
from bigbird_port.formats.tensorflow.builder import FileBuilder, literal_file, nbytes
from bigbird_port.formats.tensorflow.table_writer import write_table, write_varint

# tensorflow/core/framework/types.proto
_DTYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
_VARINT, _BYTES, _FIXED32 = 0, 2, 5  # wire types of protocol buffers
_PRODUCER = 1  # kTensorBundleVersion


@dataclass(frozen=True)
class TensorBundleFormat:
    """Data shards, their index and the text file ``checkpoint``, byte-identical to what TensorFlow's Saver writes.

    prefix_name: file name without ``.index``. max_shard_size: bytes in a data file, None for one file.
    Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc (BundleWriter) and
    tensorflow/core/protobuf/tensor_bundle.proto of tensorflow/tensorflow. Raises ValueError for a limit below 1.
    """

    prefix_name: str = "model.ckpt-0"
    max_shard_size: int | None = None

    def __post_init__(self) -> None:
        check_max_shard_size(self.max_shard_size)

    def plan(self, tensors: Mapping[str, Planned]) -> list[FilePlan]:
        """Return the data files, tensors back to back in the order of their names.

        Raises ValueError for a dtype that TensorFlow does not have, and for an empty name (it is the header's).
        """
        for name, tensor in tensors.items():
            if tensor.dtype.name not in _DTYPES or not name:
                raise ValueError(
                    f"a TensorFlow checkpoint cannot hold {name!r} of dtype {tensor.dtype}: expected a name, and one "
                    f"of {', '.join(_DTYPES)}"
                )
        shards = split_into_shards({name: nbytes(tensors[name]) for name in sorted(tensors)}, self.max_shard_size)
        return [self._data_file(i, len(shards), names, tensors) for i, names in enumerate(shards)]

    def finish(self, tensors: Mapping[str, Planned], crc32c: Mapping[str, int]) -> list[FilePlan]:
        """Return the index and the file ``checkpoint``; ``crc32c`` (unmasked) is that of each tensor's bytes."""
        shards = self.plan(tensors)
        pairs = {b"": _header(len(shards))}
        for shard, file in enumerate(shards):
            for name, (segment,) in file.slots.items():
                pairs[name.encode()] = _entry(tensors[name], shard, segment, crc32c[name])
        state = f'model_checkpoint_path: "{self.prefix_name}"\nall_model_checkpoint_paths: "{self.prefix_name}"\n'
        return [
            literal_file(f"{self.prefix_name}.index", write_table(sorted(pairs.items()))),
            literal_file("checkpoint", state.encode()),
        ]

    def _data_file(self, shard: int, num_shards: int, names: list[str], tensors: Mapping[str, Planned]) -> FilePlan:
        file = FileBuilder(f"{self.prefix_name}.data-{shard:05d}-of-{num_shards:05d}")
        for name in names:
            file.slot(name, nbytes(tensors[name]))
        return file.plan()


def _header(num_shards: int) -> bytes:
    """BundleHeaderProto: num_shards (1), endianness (2, little by default), version (3) with its producer (1)."""
    return _number(1, num_shards) + _message(3, _number(1, _PRODUCER))


def _entry(tensor: Planned, shard: int, segment: Segment, crc32c: int) -> bytes:
    """BundleEntryProto: dtype (1), shape (2), shard_id (3), offset (4), size (5), masked crc32c (6)."""
    shape = b"".join(_message(2, _number(1, size)) for size in tensor.shape)
    return (
        _number(1, _DTYPES[tensor.dtype.name])
        + _message(2, shape)
        + _number(3, shard)
        + _number(4, segment.offset)
        + _number(5, segment.size)
        + write_varint(6 << 3 | _FIXED32)
        + masked_crc32c(crc32c).to_bytes(4, "little")
    )


def _number(field: int, value: int) -> bytes:
    """A varint field; 0 is the default, which is not written."""
    return write_varint(field << 3 | _VARINT) + write_varint(value) if value else b""


def _message(field: int, data: bytes) -> bytes:
    return write_varint(field << 3 | _BYTES) + write_varint(len(data)) + data
