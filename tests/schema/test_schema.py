import json

import jax
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from flax.traverse_util import flatten_dict

import models_flax
import models_torch
from bigbird_port.cli import main
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.schema.layout import change_layout, merged_shape, parse_axes, split_shape
from bigbird_port.schema.table import dims, weights_of
from bigbird_port.schema.weights import from_framework, to_framework

# No two axes have the same size, so that a transpose cannot hide; heads x head_dim is the hidden size by nature.
CONFIG = BigBirdConfig(
    vocab_size=97,
    hidden_size=12,
    num_attention_heads=3,
    num_hidden_layers=2,
    intermediate_size=20,
    max_position_embeddings=31,
    type_vocab_size=5,
    num_labels=7,
    block_size=16,
)
VARIANTS = {
    "default": CONFIG,
    "no-bias": CONFIG.replace(use_bias=False),
    "original-classifier": CONFIG.replace(classifier_style="original"),
}
BY_HEAD = pytest.mark.parametrize("head", HEADS)
BY_VARIANT = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def expected_shapes(config, head, framework):
    axes = {"torch": "torch_axes", "flax": "flax_axes"}[framework]
    return {
        getattr(row, framework): merged_shape(getattr(row, axes), dims(config))
        for row in weights_of(config, head, framework)
    }


@BY_HEAD
@BY_VARIANT
def test_schema_is_the_torch_state_dict(head, config):
    with torch.device("meta"):
        model = getattr(models_torch, HEADS[head].class_name)(config)
    assert {name: tuple(x.shape) for name, x in model.state_dict().items()} == expected_shapes(config, head, "torch")


@BY_HEAD
@BY_VARIANT
def test_schema_is_the_flax_parameter_tree(head, config):
    shapes = getattr(models_flax, HEADS[head].flax_class_name)(config, _do_init=False).param_shapes()
    found = {name: leaf.shape for name, leaf in flatten_dict(shapes, sep="/").items()}
    assert found == expected_shapes(config, head, "flax")


@pytest.mark.peer
@BY_HEAD
@pytest.mark.parametrize("config", [CONFIG, VARIANTS["no-bias"]], ids=["default", "no-bias"])
def test_schema_is_that_of_transformers(head, config):
    transformers = pytest.importorskip("transformers")
    peer_config = transformers.BigBirdConfig(**config.replace(attention_type="original_full").to_dict())
    peer = getattr(transformers, HEADS[head].class_name)(peer_config)
    tied = {row.tied[0] for row in BIGBIRD.schema if row.tied and head in row.tied[1]}
    found = {name: tuple(x.shape) for name, x in peer.state_dict().items()}
    assert tied <= set(found)
    assert {k: v for k, v in found.items() if k not in tied} == expected_shapes(config, head, "torch")
    # Its Flax full attention has the three biases whatever use_bias says; its block-sparse attention heeds it.
    peer_config.attention_type = "block_sparse"
    flax_peer = getattr(transformers, HEADS[head].flax_class_name)(peer_config, _do_init=False)
    input_shape = (1, 1, 192) if head == "multiple-choice" else (1, 192)
    shapes = jax.eval_shape(lambda: flax_peer.init_weights(jax.random.key(0), input_shape))
    found = {name: leaf.shape for name, leaf in flatten_dict(dict(shapes), sep="/").items()}
    assert found == expected_shapes(config, head, "flax")


@BY_VARIANT
def test_canonical_names_are_unique(config):
    names = [row.name for row in weights_of(config)]
    assert len(names) == len(set(names))


def numbered(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


# What each layout does to an element, written out by hand: (canonical index) -> (torch index), (flax index).
DENSE = (lambda i, o: (o, i), lambda i, o: (i, o))
SAME = (lambda *at: at, lambda *at: at)
NEXT_SENTENCE = (lambda n, d: (n, d), lambda n, d: (d, n))


@pytest.mark.parametrize("row", BIGBIRD.schema, ids=lambda row: row.name)
def test_numbered_matrices_land_where_they_should(row):
    """Every element of every weight, by its number: square kernels would hide a transpose."""
    if row.name == "cls.seq_relationship.kernel":
        to_torch, to_flax = NEXT_SENTENCE
    else:
        to_torch, to_flax = DENSE if row.name.endswith(".kernel") else SAME
    canonical = numbered(row.shape(CONFIG))
    torch_array = change_layout(canonical, row.axes, row.torch_axes, dims(CONFIG))
    flax_array = change_layout(canonical, row.axes, row.flax_axes, dims(CONFIG))
    for at in np.ndindex(canonical.shape):
        assert torch_array[to_torch(*at)] == canonical[at] == flax_array[to_flax(*at)]


@pytest.mark.parametrize("row", [row for row in BIGBIRD.schema if "heads" in row.axes], ids=lambda row: row.name)
def test_numbered_3d_kernels_split_into_heads(row):
    """A [D, N, H] kernel is the [D, D] one with output column h * H + j at [.., h, j]; [N, H, D] likewise in rows."""
    sizes = dims(CONFIG)
    H = sizes["head_dim"]
    split = numbered(split_shape(row.axes, sizes))
    merged = change_layout(split, row.axes, row.axes, sizes)
    for at in np.ndindex(split.shape):
        if row.axes == "hidden (heads head_dim)":
            d, h, j = at
            assert merged[d, h * H + j] == split[at]
        elif row.axes == "(heads head_dim) hidden":
            h, j, d = at
            assert merged[h * H + j, d] == split[at]
        else:
            h, j = at
            assert merged[h * H + j] == split[at]


def test_layouts_with_other_axes_or_shapes_are_refused():
    sizes = {"in": 2, "out": 3}
    with pytest.raises(ValueError, match="has shape"):
        change_layout(np.zeros((3, 2)), "in out", "out in", sizes)
    with pytest.raises(ValueError, match="same axes"):
        change_layout(np.zeros((2, 3)), "in out", "out out", sizes)


def test_axes_parse_into_groups():
    assert parse_axes("hidden (heads head_dim)") == (("hidden",), ("heads", "head_dim"))


@BY_HEAD
@BY_VARIANT
@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_round_trip_keeps_every_bit(head, config, framework):
    rng = np.random.default_rng(0)
    weights = {
        row.name: rng.standard_normal(row.shape(config), np.float32) for row in weights_of(config, head, framework)
    }
    arrays = to_framework(weights, config, head, framework)
    again = from_framework(arrays, config, head, framework)
    assert set(again) == set(weights)
    assert all(again[name].tobytes() == weights[name].tobytes() for name in weights)


def test_one_sorted_report_names_everything_that_does_not_fit():
    weights = {row.name: np.zeros(row.shape(CONFIG), np.float32) for row in weights_of(CONFIG, "masked-lm", "torch")}
    arrays = to_framework(weights, CONFIG, "masked-lm", "torch")
    arrays["stray"] = arrays.pop("bert.pooler.weight")
    arrays["bert.pooler.bias"] = np.zeros(5, np.float32)
    arrays["cls.predictions.decoder.bias"] = np.ones(97, np.float32)
    with pytest.raises(ValueError, match="masked-lm") as caught:
        from_framework(arrays, CONFIG, "masked-lm", "torch")
    lines = str(caught.value).splitlines()[1:]
    assert lines == [
        "  extra: stray [12, 12]",
        "  misshapen: bert.pooler.bias is [5], the configuration makes it [12]",
        "  missing: bert.pooler.weight",
        "  untied: cls.predictions.decoder.bias should hold the values of cls.predictions.bias, but differs",
    ]


def test_command_prints_every_row_and_json_agrees():
    text = CliRunner().invoke(main, ["schema"])
    assert text.exit_code == 0
    assert all(row.torch in text.output and row.flax in text.output for row in BIGBIRD.schema)
    records = json.loads(CliRunner().invoke(main, ["schema", "--json"]).output)
    assert [record["name"] for record in records] == [row.name for row in BIGBIRD.schema]


def test_command_prints_one_head():
    records = json.loads(CliRunner().invoke(main, ["schema", "--head", "qa", "--json"]).output)
    names = {record["name"] for record in records}
    assert "qa_classifier.qa_outputs.kernel" in names
    assert not any(name.startswith(("cls.", "pooler")) for name in names)
