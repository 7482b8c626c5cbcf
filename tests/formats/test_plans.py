"""What all formats have in common; and that the tests' own check of a plan can fail."""

import dataclasses

import numpy as np
import pytest

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.formats.file_plan import FilePlan, Planned, Segment
from bigbird_port.formats.flax.msgpack_writer import FlaxMsgpackFormat
from bigbird_port.formats.safetensors.neutral import NeutralFormat
from bigbird_port.formats.safetensors.writer import SafetensorsFormat
from bigbird_port.formats.shards import split_into_shards
from bigbird_port.formats.tensorflow.bundle_writer import TensorBundleFormat
from bigbird_port.schema.table import weights_of
from tests.formats.execute import execute, numbered

ARRAYS = {"a": numbered("i1", 4)}
GOOD = FilePlan("x", 6, ((0, b"<"), (5, b">")), {"a": (Segment(1, 3), Segment(4, 1))})


def test_a_plan_is_carried_out():
    assert execute(GOOD, ARRAYS) == b"<\0\1\2\3>"


@pytest.mark.parametrize(
    "fault",
    [
        {"size": 7},  # the end is not covered
        {"literals": ((0, b"<"),)},
        {"literals": ((0, b"<<"), (5, b">"))},  # an overlap
        {"literals": ((5, b">"),)},  # a gap at the start
        {"slots": {"a": (Segment(1, 3),)}},  # a tensor cut short
        {"slots": {"a": (Segment(1, 3), Segment(4, 2))}},
        {"slots": {"a": (Segment(1, 1), Segment(3, 3))}},
    ],
)
def test_a_plan_that_does_not_tile_its_file_is_caught(fault):
    with pytest.raises(AssertionError):
        execute(dataclasses.replace(GOOD, **fault), ARRAYS)


@pytest.mark.parametrize("form", [SafetensorsFormat(), FlaxMsgpackFormat(), TensorBundleFormat()])
def test_big_endian_values_are_refused(form):
    with pytest.raises(ValueError, match="planned as >f4, big-endian"):
        form.plan({"a": Planned(np.dtype(">f4"), (2,))})


def test_a_plan_needs_no_values():
    """A model of 100 GB is planned from names and shapes; each value has one place in each format."""
    config = BigBirdConfig(hidden_size=16_384, num_attention_heads=64, intermediate_size=65_536, num_hidden_layers=8)
    tensors = {row.name: Planned(np.dtype("f4"), row.shape(config)) for row in weights_of(config, "pretraining")}
    total = sum(4 * int(np.prod(tensor.shape, dtype=int)) for tensor in tensors.values())
    assert total > 100e9
    slashed = {name.replace(".", "/"): tensor for name, tensor in tensors.items()}
    for form, names in ((SafetensorsFormat(max_shard_size=5 * 10**9), tensors), (FlaxMsgpackFormat(), slashed),
                        (TensorBundleFormat(max_shard_size=5 * 10**9), tensors),
                        (NeutralFormat(config, "pretraining"), tensors)):  # fmt: skip
        segments = [part for plan in form.plan(names) for parts in plan.slots.values() for part in parts]
        assert sum(part.size for part in segments) == total


def test_shards_follow_the_order_and_the_limit():
    sizes = {"a": 3, "b": 3, "c": 9, "d": 1, "e": 0, "f": 4}
    assert split_into_shards(sizes, 7) == [["c"], ["a", "b", "d", "e"], ["f"]]
    assert split_into_shards(sizes, None) == [list(sizes)]
    assert split_into_shards({}, 7) == [[]]
