"""Inspection: what a source is, what its names mean, what its values give away, whether it fits or not."""

import json
import math
import shutil
import statistics

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.inspect_source import inspect
from bigbird_port.conversion.targets import Choices
from bigbird_port.conversion.values.statistics import Statistics
from tests.conftest import DEMO
from tests.conversion.brought.sources import numbered, read_all, rewrite, write_torch


@pytest.fixture
def folder(tmp_path):
    return write_torch(tmp_path / "model", numbered())


def run(*arguments):
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def by_name(found):
    return {tensor.name: tensor for tensor in found.tensors}


def as_json(*arguments, exit_code=0):
    result = run(*arguments, "--json")
    assert result.exit_code == exit_code, result.output

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(result.output, parse_constant=refuse)


def test_a_checkpoint():
    found = inspect(DEMO)
    assert (found.opened.style, found.head, found.config.num_hidden_layers) == ("original", "pretraining", 2)
    slots = {"optimizer slot AdamWeightDecayOptimizer": 46, "optimizer slot AdamWeightDecayOptimizer_1": 46}
    assert found.ignored == slots | {"training step counter": 1}
    assert (found.problems, found.damaged, found.findings) == ((), [], ())
    assert sum(found.files.values()) == 274400 + 5558
    arrays = {name: values for name, values in read_all(DEMO).items() if by_name(found)[name].use.what == "weight"}
    assert len(arrays) == 46
    assert found.parameters == sum(values.size for values in arrays.values())
    for name, values in arrays.items():
        stats = by_name(found)[name].statistics
        assert (stats.count, stats.low, stats.high) == (values.size, values.min(), values.max())
        assert stats.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-12, abs=1e-15)
        assert stats.std == pytest.approx(values.std(dtype=np.float64), rel=1e-12)
    assert by_name(found)["transform/kernel"].use.name == "cls.predictions.transform.dense.kernel"


@pytest.mark.parametrize("kind", ["torch", "flax", "tf", "neutral", "orbax"])
def test_every_kind(tmp_path, kind):
    to = ("flax" if kind == "orbax" else kind,)
    convert(
        DEMO, tmp_path / "out", Settings(to=to, choices=Choices(flax_format="orbax" if kind == "orbax" else "msgpack"))
    )
    found = inspect(tmp_path / "out")
    assert (found.head, found.parameters, found.problems) == ("pretraining", inspect(DEMO).parameters, ())
    assert {tensor.use.what for tensor in found.tensors} == {"weight"}
    assert len({tensor.use.name for tensor in found.tensors}) == 46


def test_the_lines(folder):
    result = run(folder, "--head", "qa")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"{folder}: PyTorch weights"
    assert "head: qa, 2 layers" in result.output
    (row,) = (line for line in lines if line.startswith("cls.seq_relationship.weight"))
    assert row.split()[1:4] == ["[2,", "8]", "float32"]
    assert "cls.seq_relationship.kernel, unused" in row
    assert "belongs to pretraining, not to qa" in row
    assert "lacking: qa_classifier.qa_outputs.kernel: initialised from the seed" in result.output


KERNEL = "bert.encoder.layer.{}.attention.self.query.weight"


def test_values_out_of_the_ordinary(folder):
    def change(arrays):
        arrays[KERNEL.format(0)][1, 2] = np.nan
        arrays["bert.pooler.weight"][0, :2] = np.inf, -np.inf
        arrays["bert.pooler.bias"][:] = 0
        arrays["bert.encoder.layer.1.output.dense.bias"][:] = 0.25
        arrays["cls.predictions.transform.dense.weight"] = arrays[KERNEL.format(1)].copy()

    before = inspect(folder)
    assert not [tensor.flags for tensor in before.tensors if tensor.flags]
    rewrite(folder, change)
    found = by_name(inspect(folder))
    assert {name: tensor.flags for name, tensor in found.items() if tensor.flags} == {
        KERNEL.format(0): ("NaN x 1",),
        "bert.pooler.weight": ("Inf x 2",),
        "bert.pooler.bias": ("all zero",),
        "bert.encoder.layer.1.output.dense.bias": ("constant",),
        "cls.predictions.transform.dense.weight": (f"duplicate of {KERNEL.format(1)}",),
    }
    assert math.isfinite(found["bert.pooler.weight"].statistics.mean)
    values = as_json(folder)
    assert [finding["kind"] for finding in values["findings"]] == ["nonfinite", "nonfinite"]
    assert values["tensors"]["bert.pooler.weight"]["max"] is None
    assert (values["tensors"]["bert.pooler.weight"]["inf"], values["tensors"][KERNEL.format(0)]["nan"]) == (2, 1)
    assert "warning: pooler.kernel holds Inf" in run(folder).output


def test_layers_that_are_copies(folder):
    def copy(arrays):
        for name in [name for name in arrays if ".layer.0." in name]:
            arrays[name.replace(".layer.0.", ".layer.1.")] = arrays[name].copy()

    rewrite(folder, copy)
    found = inspect(folder)
    assert [finding.text for finding in found.findings] == ["encoder.layer.1 has the same kernels as encoder.layer.0"]
    assert sum("duplicate of" in flag for tensor in found.tensors for flag in tensor.flags) == 16


def test_a_source_that_does_not_fit_is_shown(folder):
    (folder / "config.json").write_text(
        json.dumps(json.loads((folder / "config.json").read_text()) | {"intermediate_size": 13})
    )
    values = as_json(folder)
    (problem,) = values["problems"]
    assert "misshapen: bert.encoder.layer.0.intermediate.dense.weight is [12, 8]" in problem
    assert values["config"]["intermediate_size"] == 13
    tensor = values["tensors"]["bert.encoder.layer.0.intermediate.dense.weight"]
    assert (tensor["use"], tensor["weight"]) == ("weight", "encoder.layer.0.intermediate.dense.kernel")
    assert tensor["mean"] == pytest.approx(0.5, abs=0.1)
    assert "problem: " in run(folder).output


def test_without_a_configuration(folder, tmp_path):
    (folder / "config.json").unlink()
    values = as_json(folder)
    assert (values["config"], values["head"], values["layers"]) == (None, None, None)
    assert "no configuration lies beside it" in values["problems"][0]
    assert len([entry for entry in values["tensors"].values() if entry["use"] == "weight"]) == 46
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in DEMO.glob("model*"):
        shutil.copy(file, bare)
    assert "--num-attention-heads" in as_json(bare)["problems"][0]
    values = as_json(bare, "--num-attention-heads", "2")
    assert values["problems"] == []
    assert "configuration inferred from the variables" in values["config_notes"][0]


def test_a_file_of_another_model(tmp_path):
    arrays = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array([7])}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    values = as_json(tmp_path)
    assert values["problems"]
    assert values["tensors"]["conv.weight"]["use"] == "extra"
    assert (values["tensors"]["conv.weight"]["mean"], values["tensors"]["steps"]["max"]) == (2.5, 7.0)


def test_names_that_repeat_a_weight(folder):
    def tie(arrays):
        arrays["cls.predictions.decoder.bias"] = arrays["cls.predictions.bias"].copy()

    def untie(arrays):
        arrays["cls.predictions.decoder.bias"][9] += 1

    parameters = inspect(folder).parameters
    rewrite(folder, tie)
    found = inspect(folder)
    assert by_name(found)["cls.predictions.decoder.bias"].use.what == "alias"
    assert (found.parameters, found.problems) == (parameters, ())
    assert not [tensor.flags for tensor in found.tensors if tensor.flags]
    rewrite(folder, untie)
    assert inspect(folder).problems == (
        "cls.predictions.decoder.bias should hold the values of cls.predictions.bias, but differs",
    )


def test_damaged_values_are_named_and_the_others_shown(tmp_path):
    broken = shutil.copytree(DEMO, tmp_path / "broken")
    (data,) = broken.glob("*.data-*")
    raw = bytearray(data.read_bytes())
    at = next(tensor for tensor in inspect(DEMO).opened.store.runs["bert/pooler/dense/kernel"]).offset
    raw[at + 5] ^= 1
    data.write_bytes(raw)
    values = as_json(broken, exit_code=1)
    damaged = {name: entry["error"] for name, entry in values["tensors"].items() if entry["error"]}
    assert list(damaged) == ["bert/pooler/dense/kernel"]
    assert "does not match its crc32c" in damaged["bert/pooler/dense/kernel"]
    assert "mean" in values["tensors"]["bert/pooler/dense/bias"]
    assert "damaged: bert/pooler/dense/kernel" in run(broken).output


def test_what_cannot_be_opened_is_refused(tmp_path):
    result = run(tmp_path / "absent")
    assert (result.exit_code, "there is no such file" in result.output) == (2, True)


@given(st.lists(st.integers(0, 40), max_size=5), st.sampled_from([0.0, 1e4, -1e8, 1e10]))
def test_pieces_give_the_statistics_of_the_whole(cuts, offset):
    """The witness calculates in fractions. The error's bound is Chan, Golub and LeVeque's (1983), in which the ratio
    of mean to deviation counts once; in a sum of squares it counts twice, and at 1e10 no digit is left."""
    values = np.random.default_rng(1).standard_normal(40) + offset
    found = Statistics()
    for piece in np.split(values, sorted(cuts)):
        found.add(piece)
    assert (found.count, found.low, found.high) == (40, values.min(), values.max())
    assert found.mean == pytest.approx(statistics.mean(values.tolist()), rel=1e-15)
    bound = 1e-14 + 4 * np.finfo(np.float64).eps * abs(offset)
    assert found.std == pytest.approx(statistics.pstdev(values.tolist()), rel=bound)


def test_statistics_of_nothing_and_of_nothing_finite():
    found = Statistics()
    assert (found.count, found.flags()) == (0, [])
    found.add(np.float32([np.nan, np.nan]))
    assert (found.flags(), found.finite, math.isnan(found.std)) == (["NaN x 2"], 0, True)
    found.add(np.float32([np.inf, 3, 5]))
    assert (found.low, found.high, found.mean, found.std) == (3, np.inf, 4, 1)
