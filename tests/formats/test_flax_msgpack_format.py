import flax.serialization
import numpy as np
import pytest
from hypothesis import given, settings

from bigbird_port.formats.flax.msgpack_reader import read_flax_msgpack
from bigbird_port.formats.flax.msgpack_writer import FlaxMsgpackFormat
from bigbird_port.formats.flax.tree import nested
from tests.formats.execute import files_of, numbered, planned
from tests.formats.strategies import array_sets, same


def packed(arrays, **options):
    (data,) = files_of(FlaxMsgpackFormat(**options), arrays).values()
    return data


@settings(max_examples=60, deadline=None)
@given(array_sets)
def test_it_is_flaxs_byte_for_byte(arrays):
    assert packed(arrays) == flax.serialization.to_bytes(nested(arrays))


# The extension's payload is 2 bytes + the shape + the name's length + a binary's header + the data.
SIZES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 200, 230, 237, 238, 239, 240, 241, 245, 255, 256, 257, 300, 65_500, 65_515, 65_516,
         65_517, 65_518, 65_519, 65_520, 65_535, 65_536, 65_537, 200_000]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "bool", "float32"])
def test_headers_are_minimal_at_every_change_of_width(dtype):
    for size in SIZES:
        arrays = {"a": numbered(dtype, size)}
        assert packed(arrays) == flax.serialization.to_bytes(arrays), size


def test_maps_and_names_of_every_width():
    arrays = {f"{'n' * length}{i}/{'m' * 300}": numbered("f4", i % 3) for i, length in enumerate(range(0, 400, 7))}
    arrays |= {f"many/{i}": numbered("i1", 1) for i in range(70_000)}
    assert packed(arrays) == flax.serialization.to_bytes(nested(arrays))


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 4096])
def test_large_arrays_are_chunked_as_flax_chunks_them(monkeypatch, chunk_bytes, tmp_path):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", chunk_bytes)
    arrays = {"a/kernel": numbered("f4", 5, 7, 3), "a/bias": numbered("f8", 3), "b": numbered("i1", 64),
              "c": numbered("f2", 0, 3), "d": numbered("f4")}  # fmt: skip
    data = packed(arrays, chunk_bytes=chunk_bytes)
    assert data == flax.serialization.to_bytes(nested(arrays))
    assert (b"__msgpack_chunked_array__" in data) == (chunk_bytes < 420)
    (tmp_path / "flax_model.msgpack").write_bytes(data)
    same(read_flax_msgpack(tmp_path / "flax_model.msgpack"), arrays)
    restored = flax.serialization.from_bytes(nested(arrays), data)
    np.testing.assert_array_equal(restored["a"]["kernel"], arrays["a/kernel"])


def test_chunks_of_the_real_size_stay_below_the_formats_limit():
    """Planning costs no memory, so a table of 20 GiB can be planned: the largest slot is one chunk."""
    (plan,) = FlaxMsgpackFormat().plan(planned({"e": np.broadcast_to(np.float32(0), (5 << 20, 1 << 10))}))
    sizes = [segment.size for segment in plan.slots["e"]]
    assert sizes == [1 << 30] * 20
    assert plan.size == sum(sizes) + sum(len(data) for _, data in plan.literals)
    (whole,) = FlaxMsgpackFormat().plan(planned({"e": np.broadcast_to(np.int8(0), (1 << 30,))}))
    assert len(whole.slots["e"]) == 1


def test_a_leaf_that_is_a_parent_is_named():
    tensors = planned({"a/b": numbered("f4", 1), "a/b/c": numbered("f4", 1)})
    with pytest.raises(ValueError, match="'a/b' is a tensor and also the parent of 'a/b/c'"):
        FlaxMsgpackFormat().plan(tensors)
    with pytest.raises(ValueError, match="'a/b' is a tensor and also the parent of 'a/b/c'"):
        FlaxMsgpackFormat().plan(dict(reversed(tensors.items())))


def test_what_it_cannot_hold_is_named():
    with pytest.raises(ValueError, match="x is of dtype object"):
        FlaxMsgpackFormat().plan(planned({"x": np.array([None])}))
    with pytest.raises(ValueError, match="chunk_bytes is 0"):
        FlaxMsgpackFormat(chunk_bytes=0)
