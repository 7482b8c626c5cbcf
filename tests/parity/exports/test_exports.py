"""Programs for other runtimes: what convert writes, what they compute, and that a wrong one is seen."""

import json
import shutil

import numpy as np
import pytest
import torch

import models_torch
from bigbird_port.conversion.convert import Settings, convert, dry_run
from bigbird_port.conversion.exports import find_exports, read_record
from bigbird_port.conversion.verify import verify
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from parity.exports.exporter import Exporter
from parity.exports.proof import padded, prove
from parity.exports.running import open_program
from parity.exports.shape import NAMES, shape_for
from parity.run.conditions import Options
from parity.run.run import run_parity
from parity.witnesses.witness import Setting, Source, load_witness
from tests.conftest import DEMO, GOLDEN
from tests.conversion.test_manifest_schema import errors

pytest.importorskip("onnxruntime", reason="bigbird-port[onnx] is not installed")
onnx = pytest.importorskip("onnx")

SIZES = {
    "vocab_size": 96,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
PATTERN = {"block_size": 4, "num_random_blocks": 1, "random_blocks": "transformers", "max_encoder_length": 64}
SPARSE = BigBirdConfig(**SIZES, **PATTERN)
FULL = BigBirdConfig(**SIZES, attention_type="original_full")
AGAINST = ("reference", "onnx", "exported")


def source(folder, config, head):
    folder.mkdir(exist_ok=True)
    config.family.model_class(head, "torch").from_config(config.for_head(head)).save_pretrained(folder / "source")
    return folder / "source"


def converted(folder, config, head, *to, **more):
    out = folder / "out"
    convert(source(folder, config, head), out, Settings(to=to, **more), exporter=Exporter())
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A block-sparse model for torch, and its programs; that for Flax is made and removed on the way."""
    return converted(tmp_path_factory.mktemp("exports"), SPARSE, "masked-lm", "torch", "onnx", "stablehlo")


def bare(out, folder):
    """A copy without its manifest, so that nothing but numbers can tell what was changed."""
    shutil.copytree(out, folder)
    (folder / "manifest.json").unlink()
    return folder


def test_what_is_written(out):
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "onnx", "stablehlo", "torch"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert errors(manifest) == []
    assert manifest["exports"] == {name: read_record(out / name).to_json() for name in ("onnx", "stablehlo")}
    found = find_exports(out)["onnx"]
    assert found.inputs == {name: {"dtype": "int64", "shape": ["batch", 64]} for name in NAMES}
    assert found.outputs == {"logits": {"dtype": "float32", "shape": ["batch", 64, 96]}}
    assert (found.length, found.pattern_length, found.details["opset"]) == (64, 64, 20)
    assert found.verified["relative_error"] < 1e-5
    assert find_exports(out)["stablehlo"].details["platforms"] == ["cpu", "cuda", "tpu"]


def test_verify_knows_programs_and_sees_a_changed_one(out, tmp_path):
    result = verify(out)
    assert result.passed
    assert {"onnx files", "onnx record", "stablehlo files"} <= {check.name for check in result.checks}
    other = tmp_path / "out"
    shutil.copytree(out, other)
    changed = bytearray((other / "onnx/model.onnx").read_bytes())
    changed[-1] ^= 1
    (other / "onnx/model.onnx").write_bytes(changed)
    assert [check.name for check in verify(other).checks if not check.passed] == ["onnx files"]


@pytest.mark.parametrize("name", ["onnx", "stablehlo"])
def test_a_program_runs_on_any_batch(out, name):
    run = open_program(out / name, read_record(out / name))
    model = models_torch.BigBirdForMaskedLM.from_pretrained(out)
    for batch in (2, 5):
        inputs = padded(SPARSE, batch, 64)
        found = run(inputs)["logits"]
        tensors = {name: torch.from_numpy(x).long() for name, x in inputs.items()}
        expected = model(**tensors).logits.detach().numpy()
        real = inputs["attention_mask"] != 0
        assert found.shape == expected.shape
        assert np.abs(found - expected)[real].max() < 1e-5


def test_parity_holds_programs_beside_the_others(out):
    options = Options(witnesses=AGAINST, batches=(1, 3))
    result = run_parity(out, ("masked-lm",), options)
    assert result.passed
    pairs = {(row.value, row.condition, row.error) for row in result.rows}
    for name in AGAINST[1:]:
        assert {(name, f"{batch}x64", error) for batch in (1, 3) for error in ("accumulated", "loss")} <= pairs


def test_shorter_texts_are_padded_to_the_length_of_the_program(out):
    result = run_parity(out, ("masked-lm",), Options(witnesses=AGAINST[:2], length=50))
    assert result.passed
    assert {row.shape for row in result.rows if row.tap == "logits"} == {(2, 50, 96)}
    with pytest.raises(ValueError, match="texts of 64 tokens, not 65|shorten them"):
        run_parity(out, ("masked-lm",), Options(witnesses=AGAINST[:2], length=65))


@pytest.mark.parametrize("name", AGAINST[1:])
def test_a_changed_weight_turns_the_program_red(out, tmp_path, name):
    other = bare(out, tmp_path / "other")
    if name == "onnx":
        model = onnx.load(other / "onnx/model.onnx")
        weight = next(x for x in model.graph.initializer if x.name.endswith("word_embeddings.weight"))
        array = onnx.numpy_helper.to_array(weight).copy()
        array[3, 3] += 0.1
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        onnx.save(model, other / "onnx/model.onnx")
    else:
        from safetensors.numpy import load_file, save_file

        arrays = load_file(other / "stablehlo/weights.safetensors")
        arrays["bert/embeddings/word_embeddings/embedding"][3, 3] += 0.1
        save_file(arrays, other / "stablehlo/weights.safetensors")
    result = run_parity(other, ("masked-lm",), Options(witnesses=AGAINST))
    assert {row.value for row in result.failures} == {name}


def test_a_program_that_computes_something_else_never_appears(out):
    witness = load_witness("onnx", Source(out, "masked-lm"), Setting())
    reference = load_witness("reference", Source(out, "masked-lm"), Setting("float64"))
    shape = shape_for(SPARSE, "masked-lm", None)
    assert prove(witness, reference, shape)["shapes"] == [[3, 64], [1, 64]]
    right = witness._run
    witness._run = lambda inputs: {name: x * 1.001 for name, x in right(inputs).items()}
    with pytest.raises(ValueError, match="does not compute what the float64 reference does: logits"):
        prove(witness, reference, shape)


class Failing:
    """An exporter whose program is wrong."""

    def check(self, plan):
        return []

    def write(self, name, model, folder, plan):
        assert (model / "torch/model.safetensors").is_file()
        (folder / "model.onnx").write_bytes(b"half a program")
        raise ValueError("it computes something else")


def test_outputs_appear_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="something else"):
        convert(DEMO, tmp_path / "out", Settings(to=("onnx",)), exporter=Failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("golden", "settings", "match"),
    [
        ("mini-pegasus", Settings(to=("onnx",)), "is not exported, because an encoder, a decoder and its cache"),
        ("mini-pretrain", Settings(to=("onnx",), dtype="bfloat16"), "does not compute in bfloat16"),
        ("mini-pretrain", Settings(to=("onnx",), length=100_000), "--length 100000: the model takes 2 .. "),
        ("mini-pretrain", Settings(to=("torch",), length=64), "ask for one, such as onnx, or leave it out"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_done(tmp_path, golden, settings, match):
    with pytest.raises(ValueError, match=match):
        dry_run(GOLDEN[golden].checkpoint, tmp_path / "out", settings, exporter=Exporter())


def test_a_runtime_that_is_not_installed_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs torch, which is not installed|pip install 'bigbird-port\[onnx\]'"):
        Exporter().check(dry_plan(tmp_path))


def dry_plan(tmp_path):
    return dry_run(DEMO, tmp_path / "out", Settings(to=("onnx",)), exporter=Failing()).plan


@pytest.mark.parametrize(
    ("config", "head", "length", "axes"),
    [
        (FULL, "masked-lm", None, ("batch", "length")),
        (FULL, "masked-lm", 32, ("batch", 32)),
        (FULL, "multiple-choice", None, ("batch", "choices", "length")),
        (SPARSE, "masked-lm", None, ("batch", 64)),
        (SPARSE, "masked-lm", 40, ("batch", 40)),
    ],
)
def test_which_axes_are_open(config, head, length, axes):
    assert shape_for(config, head, length).axes == axes


def test_a_program_of_another_head_or_type_or_pattern_is_refused(out):
    for source, setting, match in (
        (Source(out, "qa"), Setting(), "choose --head masked-lm"),
        (Source(out, "masked-lm"), Setting("float16"), "give --dtype float32"),
        (Source(out, "masked-lm", {"num_random_blocks": 2}), Setting(), "leave out num_random_blocks"),
        (Source(out / "torch", "masked-lm"), Setting(), "there is no onnx in it"),
    ):
        with pytest.raises(ValueError, match=match):
            load_witness("onnx", source, setting)


@pytest.mark.slow
@pytest.mark.parametrize("config", [FULL, SPARSE], ids=["full", "sparse"])
@pytest.mark.parametrize("head", HEADS)
def test_every_head(tmp_path, head, config):
    out = converted(tmp_path, config, head, "torch", "flax", "onnx", "stablehlo")
    result = run_parity(out, (head,), Options(witnesses=AGAINST, batches=(1, 3)))
    assert result.passed
    assert {row.value for row in result.rows} == set(AGAINST[1:])
    assert set(find_exports(out)["onnx"].outputs) == set(find_exports(out)["stablehlo"].outputs)


@pytest.mark.slow
def test_a_saved_model(tmp_path):
    pytest.importorskip("tensorflow")
    out = converted(tmp_path, FULL, "qa", "flax", "saved-model")
    assert find_exports(out)["saved-model"].outputs["start_logits"]["shape"] == ["batch", "length"]
    assert run_parity(out, ("qa",), Options(witnesses=("reference", "exported"))).passed
    assert verify(out).passed


@pytest.mark.slow
def test_weights_beside_a_file_that_cannot_hold_them_and_half_precision(tmp_path, monkeypatch):
    monkeypatch.setattr("parity.exports.to_onnx._LARGEST", 1000)
    out = converted(tmp_path, FULL, "qa", "torch", "onnx", dtype="float16")
    assert (out / "onnx/model.onnx.data").is_file()
    assert find_exports(out)["onnx"].details["external_data"]
    assert run_parity(out, ("qa",), Options(witnesses=AGAINST[:2], dtype="float16")).passed


@pytest.mark.slow
def test_a_prenorm_model(tmp_path):
    config = SPARSE.replace(norm_type="prenorm")
    converted(tmp_path, config, "base", "torch", "onnx", "stablehlo")
