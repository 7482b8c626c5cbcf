"""Files of 1 MiB that would grow without end, and the limits that keep them small."""

import msgpack
import pytest

from bigbird_port.files.json_object import read_json_object
from bigbird_port.formats import limits
from bigbird_port.formats.flax.msgpack_reader import FlaxMsgpack
from bigbird_port.formats.safetensors.reader import SafetensorsFile
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.object_graph import parse_object_graph
from tests.conftest import DEMO
from tests.formats.hostile.bundles import block, field, finished, header, index, table, varint
from tests.formats.hostile.hostile import MIB, array, memory, tensors_file, write_bundle


def growing_keys():
    """Each key shares all but its last letters with the one before it."""
    first = varint(0) + varint(506) + varint(0) + b"k" * 500 + b"%06x" % 0
    rest = b"".join(varint(500) + varint(6) + varint(0) + b"%06x" % i for i in range(1, 100_000))
    return table([block([(b"", header())]), finished(first + rest)])


def far_leaves():
    """A valid tree: as many arrays as there may be, under as long names."""
    head = b"\x81\xd9\xfa" + b"k" * 250 + b"\x81\xd9\xfa" + b"k" * 250 + b"\xde" + (19_999).to_bytes(2, "big")
    packed = msgpack.packb(array(shape=(0,), dtype="int8", data=b""))
    return head + b"".join(b"\xa5%05x" % i + packed for i in range(19_999))


def open_graph(path):
    return parse_object_graph(path.read_bytes())


# What opens it, its name, its bytes, and the memory that it may take in MiB.
BOMBS = {
    "keys that share": (TensorBundle, "model", growing_keys, 16),
    "many entries": (
        TensorBundle,
        "model",
        lambda: index([(b"%06x" % i, field(1, 7)) for i in range(80_000)]),
        8,
    ),
    "lists in lists": (read_json_object, "config.json", lambda: b'{"a":[' + b"[]," * 340_000 + b"[]]}", 8),
    "objects in a header": (
        SafetensorsFile,
        "model.safetensors",
        lambda: tensors_file(b"{" + b",".join(b'"%05x":{}' % i for i in range(90_000)) + b"}"),
        32,
    ),
    "maps in maps": (
        FlaxMsgpack,
        "model.msgpack",
        lambda: b"\xdf\xff\xff\xff\xff" + b"".join(b"\xa6%06x\x80" % i for i in range(100_000)),
        8,
    ),
    "long names": (FlaxMsgpack, "model.msgpack", far_leaves, 24),
    "many variables": (open_graph, "graph", lambda: field(1, field(2, b"") * 500_000), 8),
    "many nodes": (open_graph, "graph", lambda: field(1, b"") * 500_000, 8),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_mebibyte_stays_small(tmp_path, case):
    opener, name, make, most = BOMBS[case]
    data = make()
    path = write_bundle(tmp_path, data) if opener is TensorBundle else tmp_path / name
    if opener is not TensorBundle:
        path.write_bytes(data)
    assert MIB // 4 < len(data) < 2 * MIB
    with memory(most * MIB):
        if case == "long names":
            assert len(opener(path).tensors) == 19_999
        else:
            with pytest.raises(ValueError, match="more than"):
                opener(path)


def test_the_limits_leave_room():
    """Ten times what the largest model with its optimizer needs."""
    store = TensorBundle(DEMO / "model.ckpt-30")
    assert limits.MAX_TENSORS > 10 * 1200
    assert 4 * max(map(len, store.tensors)) < limits.MAX_NAME_BYTES
