"""Types, shards, dry runs, content checks and other options of a conversion."""

import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert, dry_run
from bigbird_port.conversion.manifest import read_manifest
from bigbird_port.conversion.targets import Choices
from bigbird_port.conversion.values.content import Content, check_contents, extremes
from bigbird_port.files.casting import Rounding, cast, float_type
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.store import read
from bigbird_port.models.folder import load_weights
from tests.conftest import DEMO


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def torch_folder(tmp_path):
    convert(DEMO, tmp_path / "first", Settings(to=("torch",)))
    return tmp_path / "first/torch"


def change(folder, **weights):
    path = folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    for name, values in weights.items():
        name = name.replace("__", ".")
        arrays[name] = np.broadcast_to(np.asarray(values, np.float32), arrays[name].shape).copy()
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_casts_round_to_nearest_and_say_by_how_much(tmp_path, dtype):
    report = convert(DEMO, tmp_path / "out", Settings(dtype=dtype))
    exact = load_weights(convert(DEMO, tmp_path / "exact").out, "pretraining", "torch", None, {})[1]
    store = open_store(tmp_path / "out/torch").store
    stored = {name: read(store, name) for name in store.tensors}
    worst = 0.0
    for name, values in stored.items():
        assert values.dtype.name == dtype
        np.testing.assert_array_equal(values, exact[name].astype(values.dtype))
        worst = max(worst, np.abs(values.astype(np.float64) - exact[name]).max())
    assert worst == max(rounding.error for rounding in report.written.roundings.values()) > 0
    for framework in ("torch", "flax"):
        arrays = load_weights(tmp_path / "out", "pretraining", framework, None, {})[1]
        assert {array.dtype.name for array in arrays.values()} == {dtype}
    assert {entry["dtype"] for entry in read_manifest(tmp_path / "out").values["tensors"].values()} == {dtype}


def test_wider_types_come_back_exactly(tmp_path):
    convert(DEMO, tmp_path / "half", Settings(to=("neutral",), dtype="bfloat16"))
    report = convert(tmp_path / "half", tmp_path / "full", Settings(to=("flax",)))
    assert all(rounding.error == 0 for rounding in report.written.roundings.values())


def test_a_value_that_overflows_is_refused(tmp_path, torch_folder):
    change(torch_folder, bert__pooler__bias=7e4)
    result = run("convert", torch_folder, tmp_path / "out", "--dtype", "float16")
    assert (result.exit_code, "pooler.bias holds 70000, which is too large for float16" in result.output) == (2, True)
    assert run("convert", torch_folder, tmp_path / "out", "--dtype", "bfloat16").exit_code == 0


def test_rounding_is_measured():
    values = np.float32([1.0, 1.00390625, -3.0])
    assert cast(values, float_type("bfloat16"), "x")[1] == Rounding(0.00390625, 1.00390625)
    assert cast(values, float_type("float32"), "x")[1].error == 0
    assert cast(np.float32([np.inf, np.nan]), float_type("float16"), "x")[1].error == 0
    assert cast(np.zeros(0, np.float64), float_type("float32"), "x")[0].dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bert__pooler__bias": np.nan}, "pooler.bias holds NaN"),
        ({"bert__pooler__bias": -np.inf}, "pooler.bias holds Inf"),
    ],
)
def test_what_is_not_finite_is_refused_unless_allowed(tmp_path, torch_folder, changes, text):
    change(torch_folder, **changes)
    refused = run("convert", torch_folder, tmp_path / "out")
    assert (refused.exit_code, text in refused.output, "--allow-nonfinite" in refused.output) == (2, True, True)
    assert not (tmp_path / "out").exists()
    assert run("convert", torch_folder, tmp_path / "out", "--dry-run").exit_code == 2
    allowed = run("convert", torch_folder, tmp_path / "out", "--allow-nonfinite")
    assert (allowed.exit_code, f"warning: {text}" in allowed.output.replace("\n", " ")) == (0, True)
    assert read_manifest(tmp_path / "out").values["findings"][0]["kind"] == "nonfinite"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bert__pooler__weight": 0}, "pooler.kernel is 0 everywhere"),
        ({"bert__pooler__weight": 0.5}, "pooler.kernel is 0.5 everywhere"),
        ({"bert__embeddings__LayerNorm__weight": 1000}, "embeddings.LayerNorm.gamma lies between 1e+03 and 1e+03"),
        ({"bert__embeddings__LayerNorm__weight": 0}, "embeddings.LayerNorm.gamma lies between 0 and 0"),
    ],
)
def test_suspicious_contents_are_reported(tmp_path, torch_folder, changes, text):
    assert "warning" not in run("convert", torch_folder, tmp_path / "healthy").output
    change(torch_folder, **changes)
    result = run("convert", torch_folder, tmp_path / "out")
    assert (result.exit_code, text in result.output) == (0, True)


def test_two_equal_layers_are_reported():
    digests = {0: "a", 1: "b", 2: "a"}
    contents = {
        f"encoder.layer.{i}.{part}.kernel": Content(-1, 1, 4, digest + part)
        for i, digest in digests.items()
        for part in ("query", "key")
    }
    (found,) = check_contents(contents)
    assert found.text == "encoder.layer.2 has the same kernels as encoder.layer.0"


def test_extremes_show_what_is_not_finite():
    assert extremes(np.float32([1, -2])) == (-2, 1)
    assert all(np.isnan(extremes(np.float32([1, np.nan]))))
    assert extremes(np.array([1, -np.inf], ml_dtypes.bfloat16)) == (-np.inf, 1)


def test_a_dry_run_reads_everything_and_writes_nothing(tmp_path):
    report = dry_run(DEMO, tmp_path / "out", Settings(to=("torch", "flax", "tf", "neutral")))
    assert (report.out, len(report.written.contents)) == (None, 46)
    assert not list(tmp_path.iterdir())
    data = bytearray(next(DEMO.glob("*.data*")).read_bytes())
    for file in DEMO.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data[5000] ^= 1
    next(tmp_path.glob("*.data*")).write_bytes(data)
    result = run("convert", tmp_path, tmp_path / "out", "--dry-run")
    assert (result.exit_code, "does not match its crc32c" in result.output) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_stands_in_the_way(tmp_path):
    (tmp_path / "out").mkdir()
    assert run("convert", DEMO, tmp_path / "out", "--dry-run").exit_code == 0  # an empty folder is no loss
    (tmp_path / "out/notes").write_text("mine")
    assert "exists already" in run("convert", DEMO, tmp_path / "out", "--dry-run").output
    refused = run("convert", DEMO, tmp_path / "out", "--dry-run", "--overwrite")
    assert refused.exit_code == 2
    assert "no manifest.json of convert's" in refused.output


def test_shards_load_as_one(tmp_path):
    convert(DEMO, tmp_path / "out", Settings(choices=Choices(max_shard_size=20_000)))
    assert len(list((tmp_path / "out/torch").glob("model-*.safetensors"))) > 1
    whole = convert(DEMO, tmp_path / "whole").out
    one, other = (load_weights(path, "pretraining", "torch", None, {})[1] for path in (tmp_path / "out", whole))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_orbax_folders_load(tmp_path):
    convert(DEMO, tmp_path / "out", Settings(to=("flax",), choices=Choices(flax_format="orbax")))
    convert(DEMO, tmp_path / "whole")
    one, other = (
        load_weights(path, "pretraining", "flax", None, {})[1] for path in (tmp_path / "out/flax", tmp_path / "whole")
    )
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_repeated_tied_weight_must_be_equal(tmp_path, torch_folder):
    path = torch_folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    arrays["cls.predictions.decoder.weight"] = arrays["bert.embeddings.word_embeddings.weight"].copy()
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
    report = convert(torch_folder, tmp_path / "out")
    assert report.plan.match.fates["cls.predictions.decoder.weight"].what == "alias"
    arrays["cls.predictions.decoder.weight"][3, 4] += 1
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
    result = run("convert", torch_folder, tmp_path / "again")
    assert (result.exit_code, "should hold the values of" in result.output) == (2, True)


def test_a_bias_that_the_original_cannot_hold_is_not_dropped(tmp_path):
    from bigbird_port.families.bigbird.config import BigBirdConfig
    from bigbird_port.models.folder import write_model_folder
    from bigbird_port.schema.initialise import initial_value
    from bigbird_port.schema.table import weights_of

    config = BigBirdConfig(
        vocab_size=70, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, use_bias=False
    )
    weights = {row.name: initial_value(row, config, 0) for row in weights_of(config, "pretraining", "torch")}
    (tmp_path / "torch").mkdir()
    write_model_folder(tmp_path / "torch", weights, config, "pretraining", "torch")
    convert(tmp_path / "torch", tmp_path / "zero", Settings(to=("tf",)))
    weights["encoder.layer.0.attention.output.dense.bias"][2] = 1e-20
    write_model_folder(tmp_path / "torch", weights, config, "pretraining", "torch")
    with pytest.raises(ValueError, match="the original has no encoder.layer.0.attention.output.dense.bias"):
        convert(tmp_path / "torch", tmp_path / "out", Settings(to=("tf",)))


def test_the_report_as_json_and_quiet(tmp_path):
    result = run("convert", DEMO, tmp_path / "out", "--quiet", "--json", tmp_path / "report.json")
    assert (result.exit_code, result.output) == (0, "")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["manifest"]["tensors"].keys() == {
        entry["detail"] for entry in report["source_names"].values() if entry["fate"] == "converted"
    }
    dry = run("convert", DEMO, tmp_path / "dry", "--dry-run", "--json", tmp_path / "dry.json")
    assert (dry.exit_code, json.loads((tmp_path / "dry.json").read_text())["dry_run"]) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--to", "torch,coreml"], "unknown target 'coreml'"),
        (["--max-shard-size", "many"], "'many' is not a size"),
        (["--max-shard-size", "0"], "'0' is not a size"),
        (["--dtype", "int8"], "'int8' is not one of"),
    ],
)
def test_options_that_mean_nothing(tmp_path, arguments, text):
    result = run("convert", DEMO, tmp_path / "out", *arguments)
    assert (result.exit_code, text in result.output) == (2, True)


def test_sizes_with_units(tmp_path):
    assert run("convert", DEMO, tmp_path / "out", "--max-shard-size", "20KB").exit_code == 0
    assert (tmp_path / "out/torch/model.safetensors.index.json").is_file()


def test_a_manifest_that_was_changed_is_refused(tmp_path):
    convert(DEMO, tmp_path / "out")
    path = tmp_path / "out/manifest.json"
    path.write_text(path.read_text().replace('"head": "pretraining"', '"head": "masked-lm"'))
    with pytest.raises(ValueError, match="its own digest does not fit"):
        read_manifest(tmp_path / "out")


def test_a_progress_bar_where_someone_looks_and_nothing_elsewhere(tmp_path):
    program = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) != 0)"
    command = [sys.executable, "-c", "from bigbird_port.cli import main; main()", "convert", DEMO]
    seen = subprocess.run([sys.executable, "-c", program, *command, tmp_path / "seen"], capture_output=True, text=True)
    assert "46 tensors" in seen.stdout
    piped = subprocess.run([*command, tmp_path / "piped"], capture_output=True, text=True)
    assert (piped.returncode, piped.stderr, "tensors" in piped.stdout) == (0, "", False)
