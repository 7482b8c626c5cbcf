"""Coverage-guided fuzzing of the readers of weights: whatever the bytes, success or ValueError, in little memory.

Not a part of the test suite. To run it:

    pip install -e '.[fuzz,test]'
    python tests/fuzz/make_corpus.py CORPUS
    python tests/fuzz/fuzz_readers.py CORPUS -max_total_time=600 -rss_limit_mb=512 -max_len=65536

The first byte of an input says which reader the rest is for: a number into TARGETS, after division by their count.
torch's own files have a corpus and a run of their own, as torch alone takes 300 MB: add --torch to make_corpus.py, set
FUZZ_TORCH=1 and -rss_limit_mb=1024.
A finding is written as crash-*; give that file instead of CORPUS to see it again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["bigbird_port"]):
    from bigbird_port.families.bigbird.config import read_config
    from bigbird_port.formats import runs
    from bigbird_port.formats.flax.msgpack_reader import FlaxMsgpack
    from bigbird_port.formats.safetensors.reader import SafetensorsFile, SafetensorsShards
    from bigbird_port.formats.tensorflow import object_graph, saved_model
    from bigbird_port.formats.tensorflow import table_reader as table
    from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
    from bigbird_port.formats.torch.reader import TorchBin

import msgpack  # the witnesses are not instrumented
import safetensors

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
SHARD_BYTES = 1 << 18


class Anything:
    """Equal to every checksum: or no mutation of an index would get past the first of its checksums."""

    def __ne__(self, other):
        return False

    def __eq__(self, other):
        return True

    __hash__ = None


def read_all(store, limit):
    """Read every value; none may be larger than the files that hold it."""
    for name, stored in store.tensors.items():
        if stored.dtype is None:
            continue
        assert stored.nbytes <= limit, (name, stored)
        assert sum(piece.nbytes for piece in store.pieces(name)) == stored.nbytes, name


def write(name, data):
    path = FOLDER / name
    path.write_bytes(data)
    return path


def index(data):
    """A TensorFlow index beside two shards, its checksums and theirs passed over."""
    write("fuzz.index", data)
    table.masked_crc32c = runs.masked_crc32c = lambda crc: Anything()
    try:
        read_all(TensorBundle(FOLDER / "fuzz"), 2 * SHARD_BYTES)
    finally:
        table.masked_crc32c = runs.masked_crc32c = MASKED


def checked_index(data):
    """A TensorFlow index, its checksums compared."""
    write("fuzz.index", data)
    read_all(TensorBundle(FOLDER / "fuzz"), 2 * SHARD_BYTES)


def safetensors_file(data):
    """What is accepted is accepted by the safetensors library too, with the same values."""
    store = SafetensorsFile(write("fuzz.safetensors", data))
    read_all(store, len(data))
    witness = dict(safetensors.deserialize(data))
    assert witness.keys() == store.tensors.keys()
    for name, stored in store.tensors.items():
        if stored.dtype is not None:
            assert b"".join(piece.tobytes() for piece in store.pieces(name)) == bytes(witness[name]["data"])


def shard_index(data):
    store = SafetensorsShards(write("model.safetensors.index.json", data))
    read_all(store, SHARD_BYTES)


def flax(data):
    """What is accepted is accepted by the msgpack library too."""
    read_all(FlaxMsgpack(write("fuzz.msgpack", data)), len(data))
    assert isinstance(msgpack.unpackb(data, raw=False, strict_map_key=True), dict)


def config(data):
    read_config(write("config.json", data))


def graph(data):
    """An object graph; its keys are the bundle's."""
    parsed = object_graph.parse_object_graph(data)
    keys = [attribute.key for attribute in parsed.attributes]
    names = object_graph.readable_names(parsed, set(keys), dict.fromkeys(keys, 0))
    assert len(names) == len(set(keys))


def string(data):
    saved_model._checked_string(data[4:], int.from_bytes(data[:4], "little"))


def torch_file(data):
    read_all(TorchBin(write("pytorch_model.bin", data)), len(data))


TARGETS = (index, checked_index, safetensors_file, shard_index, flax, config, graph, string)
if os.environ.get("FUZZ_TORCH"):
    TARGETS = (torch_file,)
MASKED = runs.masked_crc32c


def test_one_input(data):
    """What the fuzzer calls."""
    if data:
        with contextlib.suppress(ValueError):
            TARGETS[data[0] % len(TARGETS)](data[1:])


def main():
    """Make what the inputs need beside them, and fuzz."""
    for shard in range(2):
        write(f"fuzz.data-{shard:05d}-of-00002", bytes(SHARD_BYTES))
    write("fuzz.data-00000-of-00001", bytes(SHARD_BYTES))
    for i in range(2):
        header = b'{"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' % i
        write(f"shard-{i}.safetensors", len(header).to_bytes(8, "little") + header)
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
