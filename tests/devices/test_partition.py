"""The partition rules: every weight's split follows from its axes, and sizes that do not fit are named."""

import pytest

from bigbird_port.devices.partition import SPLIT, check_sizes, mesh_sizes, partition, partitions
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.schema.layout import parse_axes
from bigbird_port.schema.table import dims

BASE = BigBirdConfig()
TWO = {"model": 2}


def test_the_table_names_axes_of_the_schema_and_of_the_mesh():
    assert set(SPLIT) <= set(BIGBIRD.axes)
    assert set(SPLIT.values()) <= set(mesh_sizes({}))


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ("hidden (heads head_dim)", (None, "model")),
        ("(heads head_dim) hidden", ("model", None)),
        ("(heads head_dim)", ("model",)),
        ("hidden inner", (None, "model")),
        ("vocab hidden", ("model", None)),
        ("position hidden", (None, None)),
        ("hidden out", (None, None)),
    ],
)
def test_partition_of_a_layout(axes, expected):
    assert partition(axes, BASE, TWO) == expected


def test_a_vocabulary_that_is_not_divided_stays_whole():
    assert partition("vocab hidden", BASE, {"model": 4}) == (None, None)  # 50358 is twice an odd number


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_both_layouts_of_a_weight_are_split_along_the_same_axis(head, framework):
    found = {row.name: (row, axes) for row, axes in partitions(BASE, head, framework, TWO)}
    assert len(found) > 100
    for name, (row, axes) in found.items():
        layout = parse_axes(row.torch_axes if framework == "torch" else row.flax_axes)
        split = {group[0] for group, axis in zip(layout, axes, strict=True) if axis}
        assert split == {group[0] for group in parse_axes(row.axes) if group[0] in SPLIT}, name
        assert all(dims(BASE)[axis] % 2 == 0 for axis in split)


@pytest.mark.parametrize(
    ("sizes", "batch", "message"),
    [
        ({"model": 5}, None, "num_attention_heads is 12, which model=5 does not divide"),
        ({"model": 7}, None, "choose a model axis among 1, 2, 3, 4, 6, 12"),
        ({"data": 2}, 3, "batch is 3, which data=2 does not divide"),
    ],
)
def test_sizes_that_do_not_divide(sizes, batch, message):
    with pytest.raises(ValueError, match=message):
        check_sizes(BASE, sizes, batch)


@pytest.mark.parametrize("sizes", [{"tensor": 2}, {"data": 0}])
def test_no_such_mesh(sizes):
    with pytest.raises(ValueError, match="expected data, model, sequence, each of size 1 or more"):
        mesh_sizes(sizes)
