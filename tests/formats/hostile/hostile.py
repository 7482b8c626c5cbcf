"""What the tests of hostile files share: a bound on memory, and files made by hand."""

import contextlib
import json
import tracemalloc

import msgpack
import numpy as np
import pytest

from bigbird_port.formats.tensorflow.slices import slice_key
from tests.formats.hostile.bundles import field

MIB = 1 << 20

KEY = slice_key


@contextlib.contextmanager
def memory(most):
    """Fail if Python and NumPy hold more than ``most`` bytes more at any moment."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most, f"{peak / MIB:.1f} MiB"


def refused(opener, path, message):
    with memory(8 * MIB), pytest.raises(ValueError, match=message) as caught:
        opener(path)
    assert path.name.split(".")[0] in str(caught.value)


def write_bundle(folder, data):
    (folder / "model.index").write_bytes(data)
    (folder / "model.data-00000-of-00001").write_bytes(bytes(64))
    return folder / "model"


def attribute(full_name, key):
    return field(2, field(1, b"VARIABLE_VALUE") + field(2, full_name) + field(3, key))


def child(node, name):
    return field(1, field(1, node) + field(2, name))


def tensors_file(header_, data=b"", length=None):
    text = header_ if isinstance(header_, bytes) else json.dumps(header_).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


SHARDS = {"one.safetensors": {"a": np.ones(2, np.float32)}, "two.safetensors": {"b": np.ones(2, np.float32)}}


def array(shape=(2,), dtype="float32", data=bytes(8), code=1):
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))
