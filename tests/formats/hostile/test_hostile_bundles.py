"""Hostile TensorFlow checkpoints: index, slices, and object graph."""

import pytest

from bigbird_port.formats.store import read
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.object_graph import parse_object_graph, readable_names
from bigbird_port.formats.tensorflow.saved_model import SavedModel
from tests.formats.hostile.bundles import block, cut, entry, field, header, index, table, varint
from tests.formats.hostile.hostile import KEY, attribute, child, refused, write_bundle

ROWS = ((0, 1), (0, -1))

BUNDLES = {
    "no footer": (b"", "fewer than its 48-byte footer"),
    "magic": (table([block([(b"", header())])], magic=1), "not the magic number"),
    "compressed": (index([], kind=1), r"compressed \(type 1\)"),
    "checksum": (index([], crc32c=1), "does not match its crc32c"),
    "restart points": (index([], restarts=1 << 31), "more restart points than bytes"),
    "block order": (table([block([(b"", header())]), block([(b"a", entry())])], order=[1, 0]), "out of order"),
    "block twice": (table([block([])], order=[0, 0]), "the block at byte 0 is out of order"),
    "no header": (table([block([(b"a", entry())])]), "it has no header"),
    "big-endian": (index([], header(endianness=1)), "big-endian"),
    "no shards": (index([], header(shards=0)), "0 shards"),
    "many shards": (index([], header(shards=1 << 40)), f"{1 << 40} shards"),
    "shard missing": (index([], header(shards=2)), "data-00000-of-00002: the index is there, but this data file"),
    "shard number": (index([(b"a", entry(shard=1))]), "a is in shard 1 of 1"),
    "key twice": (index([(b"a", entry()), (b"a", entry())]), "the key b'a' is there twice"),
    "key order": (index([(b"b", entry()), (b"a", entry(offset=8))]), "the key b'a' is out of order"),
    "not UTF-8": (index([(b"\xff", entry())]), "utf-8"),
    "unprintable": (index([(b"a\x1b[2J", entry())]), "printable characters"),
    "long name": (index([(b"a" * 513, entry())]), "1 to 512 printable characters"),
    "type 0": (index([(b"a", entry(dtype=0))]), "type number 0"),
    "reference": (index([(b"a", entry(dtype=101))]), "type number 101"),
    "negative shape": (index([(b"a", entry(sizes=(-1,), size=8))]), "not a number in range"),
    "huge shape": (index([(b"a", entry(sizes=(1 << 62, 1 << 62), size=8))]), r"a has 8 bytes, its shape .* needs \d+"),
    "many axes": (index([(b"a", entry(sizes=(1,) * 33, size=4))]), "more than 32 axes"),
    "size": (index([(b"a", entry(size=12))]), r"a has 12 bytes, its shape \[2\] needs 8"),
    "overlap": (index([(b"a", entry()), (b"b", entry(offset=4))]), "a and b overlap at byte 4"),
    "beyond": (index([(b"a", entry(offset=60))]), "truncated: it has 64 bytes, the index needs 68"),
    "beyond, huge": (index([(b"a", entry(sizes=(1 << 40,)))]), "truncated: it has 64 bytes"),
    "negative offset": (index([(b"a", entry(offset=-8))]), "not a number in range"),
    "field end": (index([(b"a", b"\x12\x7f")]), "runs past its end"),
    "field kind": (index([(b"a", b"\x0b")]), "unknown kind 3"),
    "endless number": (index([(b"a", b"\x80" * 11)]), "runs past the end"),
    "number for message": (index([(b"a", field(1, 1) + field(2, 7))]), "not a message"),
    "slice missing": (index([(b"a", entry(sizes=(2, 2), slices=[cut((0, 1), ())]))]), "is not there"),
    "slice of nothing": (index([(KEY(b"a", ROWS), entry(sizes=(1, 2)))]), "belongs to no variable"),
    "slice axes": (index([(b"a", entry(sizes=(2, 2), slices=[cut((0, 1))]))]), "another number of axes"),
    "slice beyond": (
        index([(KEY(b"a", ((1, 2),)), entry()), (b"a", entry(slices=[cut((1, 2))]))]),
        "leaves its variable",
    ),
    "slice shape": (
        index([(KEY(b"a", ((0, 1),)), entry(sizes=(2,))), (b"a", entry(slices=[cut((0, 1))]))]),
        r"a slice of it is \[2\], expected \[1\]",
    ),
    "slice gap": (
        index([(KEY(b"a", ((0, 1),)), entry(sizes=(1,))), (b"a", entry(slices=[cut((0, 1))]))]),
        "do not make up the whole",
    ),
    "slice overlap": (
        index(
            [
                *((KEY(b"a", ((s, 2),)), entry(offset=8 * s)) for s in (0, 1)),
                (b"a", entry(sizes=(4,), slices=[cut((0, 2)), cut((1, 2))])),
            ]
        ),
        "its slices overlap",
    ),
    "grid overlap": (
        index(
            [
                *((KEY(b"a", ((0, 2), (s, 2))), entry(sizes=(2, 2), offset=16 * s)) for s in (0, 1)),
                (b"a", entry(sizes=(2, 4), slices=[cut((0, 2), (0, 2)), cut((0, 2), (1, 2))])),
            ]
        ),
        "its slices overlap",
    ),
    "slice of strings": (
        index([(KEY(b"a", ((0, 2),)), entry(dtype=7)), (b"a", entry(dtype=7, slices=[cut((0, 2))]))]),
        "partitioned and a string",
    ),
    "slice twice": (
        index([(KEY(b"a", ((0, 1),)), entry(sizes=(1,))), (b"a", entry(slices=[cut((0, 1)), cut((0, 1))]))]),
        "is not there, or there twice",
    ),
}


@pytest.mark.parametrize("case", BUNDLES)
def test_bundles(tmp_path, case):
    data, message = BUNDLES[case]
    refused(TensorBundle, write_bundle(tmp_path, data), message)


def test_the_bundles_by_hand_can_be_right(tmp_path):
    """The control of the table above: the same builders, nothing wrong."""
    pairs = [
        (KEY(b"a", ((0, 2), (0, -1))), entry(sizes=(2, 1), crc32c=0x8A9136AA)),
        (KEY(b"a", ((2, 1), (0, -1))), entry(sizes=(1, 1), offset=8, crc32c=0x0)),
        (b"a", entry(sizes=(3, 1), slices=[cut((2, 1), ()), cut((0, 2), ())])),
        (b"b", entry(offset=16)),
    ]
    store = TensorBundle(write_bundle(tmp_path, index(pairs, share=True)))
    assert {name: stored.shape for name, stored in store.tensors.items()} == {"a": (3, 1), "b": (2,)}
    with pytest.raises(ValueError, match="b does not match its crc32c"):
        read(store, "b")


def test_too_many_entries(tmp_path, monkeypatch):
    monkeypatch.setattr("bigbird_port.formats.tensorflow.bundle_reader.MAX_TENSORS", 2)
    pairs = [(name, entry(offset=8 * i)) for i, name in enumerate((b"a", b"b", b"c"))]
    refused(TensorBundle, write_bundle(tmp_path, index(pairs)), "more than 2 entries")


def test_an_index_of_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("bigbird_port.formats.tensorflow.bundle_reader.MAX_INDEX_BYTES", 100)
    refused(TensorBundle, write_bundle(tmp_path, bytes(101)), "more than 100 bytes")


GRAPHS = {
    "reference": (field(1, field(1, field(1, 5))), "it refers to node 5 of 1"),
    "not UTF-8": (field(1, field(2, field(3, b"\xff"))), "utf-8"),
    "number": (field(1, 3), "not a message"),
    "truncated": (field(1, b"abc")[:-1], "runs past its end"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_object_graphs(case):
    data, message = GRAPHS[case]
    with pytest.raises(ValueError, match=message):
        parse_object_graph(data)


def test_a_graph_with_circles_ends():
    nodes = [child(1, b"a") + child(0, b"me"), child(0, b"up") + attribute(b"", b"key")]
    graph = parse_object_graph(b"".join(field(1, node) for node in nodes))
    assert readable_names(graph, {"key"}, {"key": 0}) == {"key": "a"}


def test_a_path_too_long_gives_way_to_the_key():
    chain = [child(i + 1, b"x" * 100) for i in range(10)]
    graph = parse_object_graph(b"".join(field(1, node) for node in [*chain, attribute(b"", b"key")]))
    assert readable_names(graph, {"key"}, {"key": 0}) == {"key": "key"}


def test_too_many_nodes(monkeypatch):
    monkeypatch.setattr("bigbird_port.formats.tensorflow.object_graph.MAX_NODES", 2)
    with pytest.raises(ValueError, match="more than 2 nodes"):
        parse_object_graph(field(1, b"") * 3)


def with_graph(folder, raw, dtype=7, sizes=(), crc32c=0):
    """A checkpoint that holds nothing but an object graph of these bytes."""
    pairs = [(b"_CHECKPOINTABLE_OBJECT_GRAPH", entry(sizes=sizes, size=len(raw), dtype=dtype, crc32c=crc32c))]
    prefix = write_bundle(folder, index(pairs))
    (folder / "model.data-00000-of-00001").write_bytes(raw)
    return prefix


@pytest.mark.parametrize("raw", [b"", b"\x05abcdefghi", b"\xff" * 10, b"\x80" * 12, varint(1 << 70) + bytes(9)])
def test_damaged_strings(tmp_path, raw):
    with pytest.raises(ValueError, match="does not match its length or crc32c"):
        SavedModel(TensorBundle(with_graph(tmp_path, raw)))


def test_a_graph_that_is_no_string(tmp_path):
    with pytest.raises(ValueError, match="expected one string"):
        SavedModel(TensorBundle(with_graph(tmp_path, bytes(4), dtype=1)))
