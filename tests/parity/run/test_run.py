"""The gate passes on the right model, and fails on every way in which it was made wrong."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.flax.msgpack_reader import read_flax_msgpack
from bigbird_port.formats.flax.msgpack_writer import FlaxMsgpackFormat
from parity.given.golden import read_golden
from parity.run.conditions import Options
from parity.run.results import Result
from parity.run.run import run_parity
from tests.conftest import DEMO, GOLDEN, MODELS, require

SHORT = ("--length", "528")


@pytest.fixture
def out(tmp_path, converted):
    """A copy of the converted demo checkpoint, to tamper with."""
    return shutil.copytree(converted("mini-pretrain"), tmp_path / "out")


def parity(*arguments):
    return CliRunner().invoke(main, ["parity", *map(str, arguments), "--no-conditions"])


def first_failure(result):
    return next(line for line in result.output.splitlines() if line.startswith("first failure"))


def change_torch(out, change):
    path = out / "torch/model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})


def change_flax(out, change):
    arrays = dict(read_flax_msgpack(out / "flax/flax_model.msgpack"))
    change(arrays)
    write_arrays(out / "flax", FlaxMsgpackFormat(), arrays)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.quick("tiny-classifier")
def test_every_head_passes_on_every_golden_checkpoint(converted, name, tmp_path):
    require(GOLDEN[name])
    result = parity(converted(name), "--head", "all", "--length", 528 if "block16" in name else 768,
                    "--max-encoder-length", 768, "--json", tmp_path / "found.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["passed"]
    assert {row["head"] for row in found["rows"]} == set(HEADS)
    for head in HEADS:
        rows = [row for row in found["rows"] if head in (row["head"], *row["shared_by"])]
        taps = {row["tap"] for row in rows}
        layers = len({tap.split(".")[1] for tap in taps if tap.startswith("layer.")})
        assert layers == json.loads((converted(name) / "torch/config.json").read_text())["num_hidden_layers"]
        parts = ("query", "key", "value", "context", "attention_output", "intermediate", "output")
        assert taps >= {f"layer.0.{part}" for part in parts} | {"embeddings"}
        heads = {row["attention_head"] for row in rows if row["tap"] == "layer.0.context"}
        assert len(heads) >= 3  # all together, and each of at least two attention heads
    assert {(row["value"], row["reference"], row["error"]) for row in found["rows"]} == {
        *(
            (value, "reference", error)
            for value in ("torch", "flax")
            for error in ("accumulated", "local", "called", "loss")
        ),
        *(("flax", "torch", error) for error in ("accumulated", "called", "loss")),
    }
    masked = ("start_logits", "end_logits")  # 1e6 was taken from some, and float32 is coarse there
    assert all(0 <= row["max_abs"] < 1e-4 for row in found["rows"] if row["tap"] not in masked)
    assert max(row["max_abs"] for row in found["rows"]) > 0  # two frameworks never agree to the last bit


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.quick("bfloat16")
def test_every_dtype_passes(converted, dtype):
    """Question answering takes 1e6 from some scores, which float16 does not reach."""
    result = run_parity(converted("mini-pretrain"), ["qa", "pretraining"], Options(length=24, dtype=dtype, local=False))
    assert result.passed, [row.place for row in result.failures]
    scores = {row.tap: row.difference for row in result.rows if row.value == "flax" and row.reference == "reference"}
    assert scores.keys() >= {"start_logits", "end_logits", "prediction_logits", "seq_relationship_logits"}
    assert (scores["prediction_logits"].max_abs > 1e-12) == (dtype != "float64")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.quick("tiny-classifier", "mini-pretrain")
def test_golden_cases_pass_on_the_command_line(converted, name):
    case = require(GOLDEN[name]).cases[0]
    result = parity(converted(name), "--golden", case)
    assert result.exit_code == 0, result.output
    assert "torch / original" in result.output
    assert "flax / original" in result.output


def transpose_square(arrays):
    key = "bert.encoder.layer.1.attention.self.query.weight"
    arrays[key] = np.ascontiguousarray(arrays[key].T)


def swap_gamma_beta(arrays):
    norm = "bert/encoder/layer/0/attention/output/LayerNorm"
    arrays[f"{norm}/scale"], arrays[f"{norm}/bias"] = arrays[f"{norm}/bias"], arrays[f"{norm}/scale"]


def one_element(arrays):
    kernel = arrays["bert.encoder.layer.0.intermediate.dense.weight"]
    kernel[3, 2] *= 1.01


@pytest.mark.parametrize(
    ("tamper", "where", "integrity"),
    [
        (lambda out: change_torch(out, transpose_square), "layer.1.query", "torch weights: 1 of 46 differ"),
        (lambda out: change_flax(out, swap_gamma_beta), "layer.0.attention_output", "flax weights: 2 of 46 differ"),
        (lambda out: change_torch(out, one_element), "layer.0.intermediate", "torch weights: 1 of 46 differ"),
    ],
)
def test_a_tampered_weight_file_fails_where_it_was_tampered_with(out, tamper, where, integrity):
    tamper(out)
    result = parity(out, "--head", "masked-lm", *SHORT)
    assert result.exit_code == 1
    framework = integrity.split()[0]
    assert f"first failure: masked-lm, {where}, {framework} against reference" in first_failure(result)
    assert f"starts here: {where} " in result.output
    assert result.output.count("starts here") == 1
    assert f"FAIL {integrity}" in result.output
    assert f"FAIL {framework} as loaded for masked-lm: {integrity.split(': ')[1].split()[0]} of" in result.output


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_a_zeroed_random_plan_fails_at_the_first_context(out, framework):
    path = out / framework / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"random_blocks": "transformers"}))
    result = parity(out, "--head", "qa", *SHORT)
    assert result.exit_code == 1
    assert f"first failure: qa, layer.0.context, {framework} against reference" in first_failure(result)
    assert f"starts here: layer.0.context (encoder.layer.0.attention.self) of {framework}" in result.output
    assert f"FAIL {framework} configuration: differs in random_blocks" in result.output


def test_both_files_tampered_alike_still_fail(out):
    """Agreement between two ports is not evidence: the manifest, and the original, see what both got wrong."""
    change_torch(out, transpose_square)
    kernel = "bert/encoder/layer/1/attention/self/query/kernel"
    change_flax(out, lambda arrays: arrays.update({kernel: np.ascontiguousarray(arrays[kernel].T)}))
    result = parity(out, "--head", "base", *SHORT)
    assert result.exit_code == 1
    assert "0 failed; 9 integrity checks, 5 failed" in result.output
    (out / "manifest.json").unlink()
    assert parity(out, "--head", "base", *SHORT).exit_code == 0
    golden = parity(out, "--golden", GOLDEN["mini-pretrain"].cases[1])
    assert golden.exit_code == 1
    assert "layer.1.context, reference against original" in first_failure(golden)
    assert golden.output.count("starts here: layer.1.context ") == 3


def test_a_weight_that_vanished_fails(out):
    """The pooler, which a masked language model does not use and a folder may lack, is in the manifest."""
    change_torch(out, lambda arrays: [arrays.pop(f"bert.pooler.{leaf}") for leaf in ("weight", "bias")])
    result = parity(out, "--head", "masked-lm", *SHORT)
    assert result.exit_code == 1
    assert "FAIL torch weights: 2 of 46 differ: pooler.bias, pooler.kernel" in result.output


def test_nan_fails(out):
    change_torch(out, lambda arrays: arrays["bert.pooler.bias"].fill(np.nan))
    change_flax(out, lambda arrays: arrays.update({"bert/pooler/bias": np.full(16, np.nan, np.float32)}))
    result = parity(out, "--head", "base", *SHORT)
    assert result.exit_code == 1
    assert "pooler_output, torch against reference: NaN or Inf" in first_failure(result)


def test_a_golden_tensor_without_a_tap_fails(out, tmp_path_factory):
    """Full attention where the original's was block-sparse: its random blocks have no counterpart."""
    for framework in ("torch", "flax"):
        path = out / framework / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_type": "original_full"}))
    found = tmp_path_factory.mktemp("reports") / "found.json"  # OUT may hold nothing but what convert wrote
    result = parity(out, "--golden", GOLDEN["mini-pretrain"].cases[1], "--json", found)
    assert result.exit_code == 1
    rows = json.loads(found.read_text())["rows"]
    absent = {(row["tap"], row["value"]) for row in rows if row["problem"] and "no such tap" in row["problem"]}
    assert absent == {(f"rand_attn.{i}", name) for i in range(2) for name in ("torch", "flax", "reference")}


def test_another_head_may_be_compared_with_a_golden_case(converted):
    result = parity(converted("mini-pretrain"), "--golden", GOLDEN["mini-pretrain"].cases[1], "--head", "qa")
    assert result.exit_code == 0, result.output
    assert "not compared, without a counterpart: mlm_log_probs, mlm_loss, nsp_log_probs" in result.output


@pytest.mark.parametrize("head", ["causal-lm", "multiple-choice"])
def test_heads_that_a_golden_case_cannot_judge_are_refused(converted, head):
    result = parity(converted("mini-pretrain"), "--golden", GOLDEN["mini-pretrain"].cases[1], "--head", head)
    assert result.exit_code == 2
    assert f"cannot be compared for {head}" in result.output


def test_nothing_compared_is_no_success():
    assert not Result().passed
    assert not Result(heads=["qa"]).passed


def test_a_missing_head_is_no_success(converted):
    result = run_parity(converted("mini-pretrain"), ["base"], Options(length=40))
    assert result.passed
    result.heads.append("qa")
    assert not result.passed


def test_own_inputs(converted, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"input_ids": [[65, 5, 66, 7, 8, 66]], "question_lengths": [3]}))
    result = parity(converted("mini-pretrain"), "--inputs", tmp_path / "mine.json", "--head", "qa")
    assert result.exit_code == 0, result.output
    assert "1 x 6 tokens (given" in result.output


def test_without_a_folder_the_demo_checkpoint_is_used():
    result = parity("--head", "question-answering", "--length", 40)
    assert result.exit_code == 0, result.output
    assert "qa: 8 head weights not in the checkpoint, initialised from the seed" in result.output


def test_demo_runs_every_head():
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 0, result.output
    assert "46 variables converted" in result.output
    assert all(head in result.output for head in HEADS)
    assert "over 8 of 8 heads, 0 failed; 30 integrity checks, 0 failed" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "there is no such folder"),
        ([".", "--head", "nose"], "unknown head 'nose': expected one of base, pretraining"),
        (["--length", "0"], "0 is not in the range"),
        (["--golden", "absent.safetensors"], "expected a golden case"),
        (["--inputs", "absent.json"], "cannot be read"),
        (
            ["--golden", str(GOLDEN["mini-pretrain"].cases[0]), "--length", "5"],
            "--golden brings its own inputs: leave out --length",
        ),
        (["--length", "1000"], "max_encoder_length=528"),
        (["--length", "2000", "--max-encoder-length", "2000"], "max_position_embeddings"),
    ],
)
def test_bad_usage_exits_with_2_and_no_traceback(arguments, message):
    result = parity(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_case_of_another_checkpoint_is_refused(converted):
    case = require(GOLDEN["tiny-pretrain"]).cases[0]
    result = parity(converted("mini-pretrain"), "--golden", case)
    assert result.exit_code == 2
    assert "but the embedding has ids 0 .. 79" in result.output


def test_not_a_golden_case(tmp_path):
    safetensors.numpy.save_file({"input_ids": np.ones((1, 2), np.int32)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="metadata has no max_encoder_length"):
        read_golden(tmp_path / "x.safetensors")


def test_convert_command_says_what_it_did(tmp_path):
    result = CliRunner().invoke(main, ["convert", str(DEMO), str(tmp_path / "out"), "--head", "qa"])
    assert result.exit_code == 0, result.output
    assert "configuration from" in result.output
    assert "a qa model" in result.output
    assert "8 weights initialised from seed 0: qa_classifier" in result.output
    again = CliRunner().invoke(main, ["convert", str(DEMO), str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "exists already" in again.output
    assert convert(DEMO, tmp_path / "out", overwrite=True).plan.head == "pretraining"


def test_weights_stored_in_half_precision_pass_in_float32(tmp_path):
    """What is loaded is held against the manifest in the type that is stored."""
    convert(DEMO, tmp_path / "out", Settings(dtype="bfloat16"))
    result = CliRunner().invoke(
        main, ["parity", str(tmp_path / "out"), "--no-conditions", "--head", "base", "--length", "40"]
    )
    assert result.exit_code == 0, result.output
    assert "0 failed; 9 integrity checks, 0 failed" in result.output
