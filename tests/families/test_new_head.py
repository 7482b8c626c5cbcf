"""CONTRIBUTING.md's recipe for a head and for a weight, carried out: nothing but what it names is needed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.verify import verify
from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.families.registry import find_head, registered
from bigbird_port.models.folder import load_weights
from bigbird_port.schema.table import Weight
from tests.conftest import DEMO
from tests.families.mean_pooled import FAMILY, NAME, ROWS

IDS = np.array([[2, 9, 4, 7, 66, 3], [2, 5, 66, 0, 0, 0]])


@pytest.fixture(scope="module", autouse=True)
def family():
    with registered(FAMILY) as found:
        yield found


@pytest.fixture(scope="module")
def out(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp("new_head") / "out"
    convert(DEMO, folder, Settings(to=("torch", "flax", "neutral"), head=NAME, seed=3))
    return folder


def test_a_head_is_known_only_while_its_family_is_registered():
    assert find_head("FlaxBigBirdForMeanRegression").name == NAME
    with registered(BIGBIRD), pytest.raises(ValueError, match=f"unknown head '{NAME}'"):
        find_head(NAME)
    assert find_head(NAME).name == NAME


def test_a_conversion_writes_the_head(out):
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["head"] == NAME
    assert [manifest["tensors"][row.name]["how"] for row in ROWS] == ["initialise", "initialise"]
    assert "cls.predictions.bias" not in manifest["tensors"]
    values = json.loads((out / "torch/config.json").read_text())
    assert values["architectures"] == ["BigBirdForMeanRegression"]
    assert values["problem_type"] == "regression"
    assert all(check.passed for check in verify(out, DEMO).checks)


@pytest.mark.parametrize("source", ["torch", "flax", "neutral"])
def test_what_was_written_is_a_source(out, source, tmp_path):
    convert(out / source, tmp_path / "again", Settings(to=("torch", "flax", "neutral")))
    for name in ("torch", "flax", "neutral"):
        (file,) = (path.name for path in (out / name).iterdir() if path.suffix in (".safetensors", ".msgpack"))
        assert (tmp_path / "again" / name / file).read_bytes() == (out / name / file).read_bytes()


def test_both_frameworks_and_the_reference_compute_it(out, family):
    from parity.witnesses.whole import load_whole

    scores = []
    model = family.model_class(NAME, "torch").from_pretrained(out)
    with torch.no_grad():
        scores.append(model(torch.tensor(IDS)).logits.numpy())
    scores.append(np.asarray(family.model_class(NAME, "flax").from_pretrained(out)(IDS).logits))
    scores.append(load_whole("reference", out / "torch", NAME, {"input_ids": IDS}, {}, 0).taps["logits"])
    assert scores[0].shape == (2, 2)
    assert abs(scores[2]).min() > 1e-4
    np.testing.assert_allclose(scores[0], scores[2], atol=1e-5)
    np.testing.assert_allclose(scores[1], scores[2], atol=1e-5)


def test_a_row_is_enough_for_a_weight_to_be_carried(tmp_path):
    """A weight of every layer that the original has: renamed from the query's bias, so that a checkpoint holds it."""
    former = next(row for row in BIGBIRD.rows if row.name.endswith("intermediate.dense.bias"))
    row = replace(
        former,
        name="encoder.layer.{i}.shift.bias",
        torch="encoder.layer.{i}.shift.bias",
        flax="encoder/layer/{i}/shift/bias",
    )
    with registered(replace(BIGBIRD, rows=tuple(row if each is former else each for each in BIGBIRD.rows))):
        convert(DEMO, tmp_path / "out", Settings(to=("torch", "flax", "tf"), head="base"))
        tensors = json.loads((tmp_path / "out/manifest.json").read_text())["tensors"]
        assert tensors["encoder.layer.1.shift.bias"]["names"] == {
            "torch": "encoder.layer.1.shift.bias",
            "flax": "encoder/layer/1/shift/bias",
            "tf": "bert/encoder/layer_1/intermediate/dense/bias",
        }
        _, arrays, _ = load_weights(tmp_path / "out", "base", "flax", None, {})
        assert "encoder/layer/1/shift/bias" in arrays
        assert all(check.passed for check in verify(tmp_path / "out", DEMO).checks)


def test_a_weight_that_no_checkpoint_holds_is_named_or_initialised(tmp_path):
    row = Weight("gate", "hidden", ("{scope}/gate",), "gate", "hidden", "gate", "hidden", "ones")
    lacking = pytest.raises(ValueError, match=r"missing: bert/gate \[\d+\]")
    with registered(replace(BIGBIRD, rows=(*BIGBIRD.rows, row))), lacking:
        convert(DEMO, tmp_path / "out")
    with registered(replace(BIGBIRD, rows=(*BIGBIRD.rows, replace(row, fill="initialise")))):
        convert(DEMO, tmp_path / "out", Settings(head="base"))
        _, arrays, initialised = load_weights(tmp_path / "out", "base", "torch", None, {})
    assert initialised == []
    np.testing.assert_array_equal(arrays["gate"], 1)
