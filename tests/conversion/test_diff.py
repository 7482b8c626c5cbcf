"""Comparison of sources: the same values in any form are the same, and no wrong place goes unseen."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.diff import BY_DESIGN, DIFFERENT, EQUAL, OTHER_DTYPE, diff
from bigbird_port.conversion.targets import Choices
from bigbird_port.conversion.values.comparison import Comparison, together
from tests.conftest import DEMO, GOLDEN, require
from tests.conversion.brought.sources import numbered, rewrite, write_torch

KINDS = ("torch", "flax", "tf", "neutral", "orbax")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo checkpoint in every form."""
    folder = tmp_path_factory.mktemp("diff")
    convert(DEMO, folder / "all", Settings(to=KINDS[:4]))
    convert(DEMO, folder / "orbax", Settings(to=("flax",), choices=Choices(flax_format="orbax")))
    return {kind: folder / "all" / kind for kind in KINDS[:4]} | {"orbax": folder / "orbax", "original": DEMO}


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made["torch"], tmp_path / "torch")


def statuses(result):
    return {row.name: row.status for row in result.rows if row.status != EQUAL}


def run(*arguments):
    return CliRunner().invoke(main, ["diff", *map(str, arguments)])


@pytest.mark.parametrize(("a", "b"), [("original", kind) for kind in KINDS] + [("flax", "torch"), ("tf", "neutral")])
def test_one_model_in_two_forms_is_the_same(made, a, b):
    result = diff(made[a], made[b])
    assert (result.same(), result.compared, statuses(result)) == (True, 46, {})


LAYER = "bert.encoder.layer.{}.attention.self.{}.weight"


def swap(arrays, first, second):
    assert arrays[first].shape == arrays[second].shape
    arrays[first], arrays[second] = arrays[second], arrays[first]


def transpose(arrays):
    name = LAYER.format(0, "value")
    assert arrays[name].shape == (16, 16)
    arrays[name] = arrays[name].T


def swap_layers(arrays):
    for name in [name for name in arrays if ".layer.0." in name]:
        swap(arrays, name, name.replace(".layer.0.", ".layer.1."))


def one_bit(arrays):
    arrays["bert.embeddings.word_embeddings.weight"].view(np.uint32)[79, 15] ^= 1


KERNEL = "encoder.layer.{}.attention.self.{}.kernel"
FAULTS = {
    "a square kernel transposed": (transpose, {KERNEL.format(0, "value")}),
    "query and key swapped": (
        lambda arrays: swap(arrays, LAYER.format(1, "query"), LAYER.format(1, "key")),
        {KERNEL.format(1, "query"), KERNEL.format(1, "key")},
    ),
    "two layers swapped": (swap_layers, 32),
    "one bit": (one_bit, {"embeddings.word_embeddings.embedding"}),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("against", ["original", "torch", "flax"])
def test_right_names_prove_nothing(made, folder, fault, against):
    """All names, shapes and dtypes are as they should be; the values are elsewhere."""
    change, expected = FAULTS[fault]
    rewrite(folder, change)
    result = diff(made[against], folder)
    found = statuses(result)
    assert not result.same()
    assert not result.same(values_only=True)
    assert set(found.values()) == {DIFFERENT}
    assert (len(found) if isinstance(expected, int) else set(found)) == expected
    assert run(made[against], folder).exit_code == 1


def row_of(result, name):
    return next(row for row in result.rows if row.name == name)


def test_how_far_apart_is_measured(made, folder):
    def change(arrays):
        kernel = arrays["bert.pooler.weight"]
        kernel[0, 0], kernel[1, 2] = np.nextafter(kernel[0, 0], np.float32(9)), kernel[1, 2] * np.float32(1.5)

    before = safetensors.numpy.load_file(folder / "model.safetensors")["bert.pooler.weight"][1, 2]
    rewrite(folder, change)
    found = row_of(diff(made["flax"], folder), "pooler.kernel").comparison
    assert (found.count, found.differing) == (256, 2)
    assert found.max_abs == abs(float(np.float32(before * np.float32(1.5))) - float(before))
    assert found.max_rel == pytest.approx(1 / 3)
    assert found.max_ulp > 1_000_000
    result = run(made["flax"], folder)
    assert "2/256" in result.output
    values = json.loads(run(made["flax"], folder, "--json").output)
    assert (values["version"], values["same"], values["compared"]) == (1, False, 46)
    assert values["weights"]["pooler.kernel"]["max_ulp"] == found.max_ulp
    assert values["weights"]["pooler.bias"]["status"] == EQUAL


def test_equal_values_of_another_dtype(made, tmp_path):
    def halve(arrays):
        return {name: values.astype(ml_dtypes.bfloat16) for name, values in arrays.items()}

    def widen(arrays):
        return {name: values.astype(np.float64) for name, values in arrays.items()}

    half = rewrite(shutil.copytree(made["torch"], tmp_path / "half"), halve)
    wide = rewrite(shutil.copytree(half, tmp_path / "wide"), widen)
    result = diff(half, wide)
    assert (result.same(), result.same(values_only=True)) == (False, True)
    assert set(statuses(result).values()) == {OTHER_DTYPE}
    assert (run(half, wide).exit_code, run(half, wide, "--values").exit_code) == (1, 0)
    rounded = diff(made["torch"], half)
    assert not rounded.same(values_only=True)
    kernel = row_of(rounded, KERNEL.format(0, "query")).comparison
    assert kernel.max_ulp == 0  # in bfloat16 they are one
    assert 0 < kernel.max_rel < 2**-8


def test_a_pooler_that_torch_alone_carries(tmp_path):
    convert(DEMO, tmp_path / "out", Settings(head="masked-lm"))
    result = diff(tmp_path / "out/torch", tmp_path / "out/flax")
    assert result.same()
    assert statuses(result) == {"pooler.kernel": BY_DESIGN, "pooler.bias": BY_DESIGN}
    assert not diff(DEMO, tmp_path / "out/flax").same()  # a pretraining model uses it
    assert diff(DEMO, tmp_path / "out/flax", head="masked-lm").same()


def test_names_that_repeat_a_weight(made, folder):
    def tie(arrays):
        arrays["cls.predictions.decoder.weight"] = arrays["bert.embeddings.word_embeddings.weight"].copy()

    def untie(arrays):
        arrays["cls.predictions.decoder.weight"][3, 4] += 1

    rewrite(folder, tie)
    result = diff(made["flax"], folder)
    assert result.same()
    assert statuses(result) == {"B: cls.predictions.decoder.weight": BY_DESIGN}
    rewrite(folder, untie)
    result = diff(made["flax"], folder)
    assert not result.same()
    assert statuses(result) == {"B: cls.predictions.decoder.weight": "tied, but differs"}


def test_weights_that_one_side_lacks(made, tmp_path):
    convert(DEMO, tmp_path / "out", Settings(head="base", to=("flax",)))
    result = diff(made["flax"], tmp_path / "out")
    assert not result.same()
    assert set(statuses(result).values()) == {"only in A"}
    assert len(statuses(result)) == 7
    assert set(statuses(diff(tmp_path / "out", made["flax"])).values()) == {"only in B"}
    assert diff(made["flax"], tmp_path / "out", head="base").same()


def test_weights_that_both_lack():
    result = diff(DEMO, DEMO, head="qa")
    assert not result.same()
    assert set(statuses(result).values()) == {"in neither"}


def test_zeros_that_stand_in_for_biases(tmp_path):
    source = require(GOLDEN["tiny-block16"]).checkpoint
    convert(source, tmp_path / "out")
    result = diff(source, tmp_path / "out")
    assert result.same()
    assert list(statuses(result).values()) == [BY_DESIGN] * 3

    def train(arrays):
        arrays["bert.encoder.layer.2.attention.output.dense.bias"][1] = 1e-3

    rewrite(tmp_path / "out/torch", train)
    result = diff(source, tmp_path / "out")
    assert not result.same()
    assert statuses(result)["encoder.layer.2.attention.output.dense.bias"] == "only in B"


def test_shapes_and_configurations_that_differ(tmp_path):
    from tests.conversion.brought.sources import CONFIG

    wide = CONFIG.replace(intermediate_size=20, layer_norm_eps=1e-5)
    a = write_torch(tmp_path / "a", numbered())
    b = write_torch(tmp_path / "b", numbered(config=wide), config=wide)
    result = diff(a, b)
    assert dict(result.config) == {"intermediate_size": (12, 20), "layer_norm_eps": (1e-12, 1e-5)}
    assert statuses(result)["encoder.layer.0.output.dense.kernel"] == "shape differs"
    assert "A [12, 8], B [20, 8]" in run(a, b).output


def test_what_cannot_be_compared_is_refused(made, tmp_path):
    result = run(made["torch"], tmp_path / "absent")
    assert (result.exit_code, "there is no such file" in result.output) == (2, True)
    other = shutil.copytree(DEMO, tmp_path / "damaged")
    (data,) = other.glob("*.data-*")
    raw = bytearray(data.read_bytes())
    raw[1000] ^= 4
    data.write_bytes(raw)
    result = run(made["torch"], other)
    assert (result.exit_code, "does not match its crc32c" in result.output) == (2, True)


def compared(a, b):
    found = Comparison()
    found.add(np.asarray(a), np.asarray(b))
    return found


def test_special_values():
    nan, inf = np.float32(np.nan), np.float32(np.inf)
    payload = np.array([0x7FC00001], np.uint32).view(np.float32)
    assert compared([nan, inf, -inf], [nan, inf, -inf]).differing == 0
    found = compared(np.array([nan]), payload)
    assert (found.differing, found.max_abs, found.max_ulp) == (1, np.inf, None)
    found = compared(np.float32([0.0]), np.float32([-0.0]))
    assert (found.differing, found.max_abs, found.max_rel, found.max_ulp) == (1, 0, 0, 0)
    found = compared(np.float32([1.0]), np.array([inf]))
    assert (found.max_abs, found.max_ulp) == (np.inf, 0x7F800000 - 0x3F800000)
    assert compared(np.float32([-1e-45]), np.float32([1e-45])).max_ulp == 2
    assert compared(np.float64([-1.7e308]), np.float64([1.7e308])).max_ulp > 1 << 63
    one = ml_dtypes.bfloat16(1)
    assert compared(np.array([one]), np.float32([1 + 2**-7])).max_ulp == 1
    assert compared(np.float16([1]), np.array([one])).differing == 0


CUTS = st.lists(st.integers(0, 9), max_size=5).map(sorted)


@given(CUTS, CUTS, st.sampled_from([0, 1, -1]))
def test_pieces_are_matched_however_they_are_cut(cuts_a, cuts_b, longer):
    values, other = np.arange(9), np.arange(9 + longer)
    pairs = together(iter(np.split(values, cuts_a)), iter(np.split(other, cuts_b)))
    if longer:
        with pytest.raises(ValueError, match="one ends before the other"):
            list(pairs)
        return
    both = list(pairs)
    assert all(a.size == b.size > 0 for a, b in both)
    for side in (0, 1):
        np.testing.assert_array_equal(np.concatenate([pair[side] for pair in both]), values)
