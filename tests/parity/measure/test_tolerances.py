"""Every bound of the shipped table follows from a measurement, holds for fresh ones, and is not loose."""

import copy
import json
import math

import numpy as np
import pytest

from parity.measure.calibration import calibrate as calibrate_module
from parity.measure.calibration.bigbird import SIZES, BigBirdSize
from parity.measure.calibration.calibrate import (
    DTYPES,
    FACTOR,
    Sample,
    calibrate,
    growth_exponents,
    make_table,
    measure_samples,
)
from parity.measure.calibration.cases import make_case
from parity.measure.tolerances import (
    ERRORS,
    GROWTH,
    SHIPPED,
    Tolerance,
    kind_of,
    read_table,
    shipped_table,
    tolerance_for,
)

LAYER_KINDS = ("query", "key", "value", "context", "attention_output", "intermediate", "output")
HEAD_KINDS = ("pooler_output", "transform", "logits", "seq_relationship_logits", "span_logits", "log_probs")
FRESH_SEEDS = (1001, 1002)


@pytest.fixture
def values():
    return json.loads(SHIPPED.read_text())


def write(tmp_path, values):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(values))
    return path


def test_every_bound_is_the_measured_worst_times_the_factor(values):
    assert len(values["entries"]) > 50
    for row in values["entries"]:
        assert row["bound"] == row["worst"] * row["factor"], row
        assert row["factor"] == FACTOR, row
        assert row["samples"] >= 4, row
        assert 0 < row["worst"] < row["bound"] < 1, row
        assert "factor 4: twice" in row["reason"], row
        assert row["at"].startswith(("torch, ", "flax, ")), row
    assert values["command"].startswith("bigbird-port parity calibrate --seed ")
    assert {"numpy", "torch", "jax", "flax", "python"} <= set(values["versions"])


@pytest.mark.parametrize("error", ["accumulated", "local"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tap_has_a_tolerance(dtype, error):
    for kind in ("embeddings", "embeddings_prenorm", *HEAD_KINDS):
        assert tolerance_for(kind, dtype, "cpu", error, 12).key == f"{kind}/{dtype}/cpu/{error}"
    for kind in LAYER_KINDS:
        assert tolerance_for(f"layer.11.{kind}", dtype, "cpu", error, 11).key == f"{kind}/{dtype}/cpu/{error}"


def test_gradients_losses_and_decoding_have_tolerances():
    for tap in (
        *(f"grad.layer.3.{kind}" for kind in LAYER_KINDS),
        "grad.encoder.layer.0.attention.self.key.bias",
        "grad.embeddings.word_embeddings.embedding",
        "grad.cls.predictions.transform.LayerNorm.gamma",
        "grad.embeddings.LayerNorm.beta",
        "grad.pooler.kernel",
        "grad.cls.predictions.bias",
        "grad.embeddings",
    ):
        assert tolerance_for(tap, "float32", "cpu", "gradient", 3).bound < 1e-2, tap
    for dtype in DTYPES:
        assert tolerance_for("mlm_loss", dtype, "cpu", "loss", 3).floor == 1
        assert tolerance_for("logits", dtype, "cpu", "decoding", 3).bound < 1


@pytest.mark.parametrize(
    ("tap", "error", "kind"),
    [
        ("layer.11.output", "local", "output"),
        ("layer.0.cross_query", "accumulated", "query"),
        ("sequence_output", "accumulated", "output"),
        ("prediction_logits", "local", "logits"),
        ("end_logits", "local", "span_logits"),
        ("nsp_log_probs", "accumulated", "log_probs"),
        ("cls_loss", "accumulated", "loss"),
        ("rand_attn.3", "accumulated", "rand_attn"),
        ("encoder.layer.0.output.dense.kernel", "gradient", "grad.kernel"),
        ("grad.cls.predictions.bias", "gradient", "grad.bias"),
        ("layer.2.context", "gradient", "grad.context"),
        ("grad.layer.2.context", "gradient", "grad.context"),
        ("embeddings", "gradient", "grad.embeddings"),
    ],
)
def test_kinds_of_taps(tap, error, kind):
    assert kind_of(tap, error) == kind


def test_accumulated_errors_may_grow_with_the_root_of_the_layers():
    first, last = (tolerance_for("layer.0.output", "float32", "cpu", "accumulated", i) for i in (0, 11))
    assert last.bound / first.bound == pytest.approx(math.sqrt(12))
    assert last.worst / first.worst == pytest.approx(math.sqrt(12))
    by_name = tolerance_for("layer.11.output", "float32", "cpu", "accumulated")
    assert by_name == last
    local = [tolerance_for("layer.0.output", "float32", "cpu", "local", i) for i in (0, 11)]
    assert local[0] == local[1]
    with pytest.raises(ValueError, match=r"logits grows with depth: give layer"):
        tolerance_for("logits", "float32", "cpu", "accumulated")


def test_what_is_exact_may_not_differ():
    assert tolerance_for("rand_attn.0", "float32", "cuda", "accumulated", 0).bound == 0
    assert tolerance_for("ids", "bfloat16", "tpu", "decoding", 0).bound == 0


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("layer.0.output", "float16", "tpu", "local"), "output/float16/tpu/local"),
        (("layer.0.output", "bfloat16", "rocm", "accumulated"), "output/bfloat16/rocm/accumulated"),
        (("layer.0.output", "float8", "cpu", "local"), "output/float8/cpu/local"),
        (("layer.0.unheard_of", "float32", "cpu", "local"), "unheard_of/float32/cpu/local"),
        (("layer.0.output", "float32", "cpu", "guessed"), "output/float32/cpu/guessed"),
    ],
)
def test_what_was_not_measured_is_an_error_that_says_how_to(arguments, key):
    with pytest.raises(ValueError, match=rf"no tolerance {key}.*bigbird-port parity calibrate .*--tolerances FILE"):
        tolerance_for(*arguments, layer=0)


def test_nothing_is_shipped_for_devices_that_were_not_measured():
    assert {entry.device for entry in shipped_table().entries.values()} == {"cpu"}
    assert {entry.error for entry in shipped_table().entries.values()} == set(ERRORS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bound": 1e-2}, r"has bound 0.01, but .* was measured"),
        ({"worst": 1e-3}, r"was measured"),
        ({"factor": 100.0}, r"was measured"),
        ({"samples": 0}, r"is not measured"),
        ({"worst": float("nan"), "bound": float("nan")}, r"is not measured"),
        ({"factor": 0.5}, r"is not measured"),
        ({"reason": ""}, r"no reason"),
        ({"at": ""}, r"no reason"),
        ({"growth": "cubic"}, r"growth 'cubic'"),
        ({"by_hand": True}, r"has not the fields by_hand"),
    ],
)
def test_an_entry_that_does_not_follow_from_a_measurement_is_refused(tmp_path, values, change, message):
    changed = copy.deepcopy(values)
    changed["entries"][7].update(change)
    name = "/".join(changed["entries"][7][part] for part in ("kind", "dtype", "device", "error"))
    with pytest.raises(ValueError, match=message) as caught:
        read_table(write(tmp_path, changed))
    assert name in str(caught.value)
    assert read_table(write(tmp_path, values)) == shipped_table()


def test_other_files_are_refused(tmp_path, values):
    del values["entries"][0]["reason"]
    for text, message in (
        (json.dumps(values), "has not the fields reason"),
        (json.dumps({"version": 99}), "version 99, expected 1"),
        (json.dumps({"version": 1}), "there is no 'entries'"),
        ("[]", "no table of tolerances"),
        ("{", "no table of tolerances"),
    ):
        path = tmp_path / "other.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_table(path)
    with pytest.raises(ValueError, match="no table of tolerances"):
        read_table(tmp_path / "absent.json")


def sample(found, error="accumulated", layer=0, device="cuda"):
    return Sample(kind_of("output", error), "float32", device, error, layer, found, f"torch, layer {layer}")


def test_a_table_is_the_worst_of_each_key_times_the_factor():
    table = make_table([sample(1e-6), sample(3e-6, layer=3), sample(9e-6, layer=99), sample(2e-6, "local")], "made")
    accumulated, local = table.entries["output/float32/cuda/accumulated"], table.entries["output/float32/cuda/local"]
    assert (accumulated.worst, accumulated.samples, accumulated.at) == (3e-6 / GROWTH["sqrt"](3), 3, "torch, layer 3")
    assert (local.worst, local.bound, local.growth) == (2e-6, 2e-6 * FACTOR, "none")


def test_a_bound_that_would_excuse_all_is_not_given():
    table = make_table([sample(0.3, "gradient"), sample(0.2)], "made")
    assert set(table.unjudged) == {"grad.output/float32/cuda/gradient"}
    with pytest.raises(
        ValueError, match=r"no tolerance grad.output/float32/cuda/gradient, for output: off by 0.3 .* would excuse all"
    ):
        tolerance_for("output", "float32", "cuda", "gradient", 0, table)
    assert tolerance_for("layer.0.output", "float32", "cuda", "accumulated", 0, table).bound == 0.8
    with pytest.raises(ValueError, match="may be off by 1.1 of its scale at depth 1"):
        tolerance_for("layer.1.output", "float32", "cuda", "accumulated", 1, table)


def test_a_table_of_another_device_joins_the_shipped_one():
    joined = shipped_table().joined(make_table([sample(1e-6)], "made"))
    assert tolerance_for("layer.0.output", "float32", "cuda", "accumulated", 0, joined).bound == 4e-6
    own = tolerance_for("layer.0.output", "float32", "cpu", "local", 0)
    assert tolerance_for("layer.0.output", "float32", "cpu", "local", 0, joined) == own
    assert isinstance(own, Tolerance)


@pytest.fixture(scope="module")
def fresh():
    """A small calibration with seeds that the table has not seen."""
    assert not {f"seed {seed}" for seed in FRESH_SEEDS} & set(shipped_table().command.split(" --"))
    return make_table(list(measure_samples(FRESH_SEEDS, ["full-16"], ["float32"], ["cpu"])), "fresh")


def test_fresh_seeds_stay_within_the_table(fresh):
    assert len(fresh.entries) > 30
    for key, entry in fresh.entries.items():
        assert entry.worst <= shipped_table().entries[key].bound, key


def test_the_table_is_not_loose(fresh):
    """A fresh worst case is at least a hundredth of its bound: 4 is the factor, 25 between easy and hard sizes."""
    for key, entry in fresh.entries.items():
        assert entry.worst >= shipped_table().entries[key].bound / 100, key


@pytest.mark.parametrize(
    ("weight", "tap"),
    [
        ("encoder.layer.1.output.dense.kernel", "output"),
        ("encoder.layer.0.attention.self.query.kernel", "query"),
        ("encoder.layer.0.attention.self.value.bias", "value"),
        ("cls.predictions.transform.LayerNorm.gamma", "transform"),
    ],
)
def test_a_single_element_of_a_weight_off_by_a_percent_is_beyond_the_table(monkeypatch, weight, tap):
    make = calibrate_module.make_witness

    def make_wrong(name, config, head, weights, setting):
        values = weights[weight].copy()
        values.flat[np.abs(values).argmax()] *= 1.01
        return make(name, config, head, {**weights, weight: values}, setting)

    monkeypatch.setattr(calibrate_module, "make_witness", make_wrong)
    found = make_table(list(measure_samples([0], ["full-16"], ["float32"], ["cpu"], ["torch"])), "wrong")
    for error in ("local", "accumulated"):
        key = f"{tap}/float32/cpu/{error}"
        assert found.entries[key].worst > shipped_table().entries[key].bound, key


def test_calibration_writes_what_is_read_and_names_what_made_it(tmp_path):
    out = tmp_path / "own.json"
    table = calibrate(out, [5], ["full-16"], ["float32"], ["cpu"], witnesses=["torch"])
    assert read_table(out) == table
    assert table.command == (
        "bigbird-port parity calibrate --seed 5 --size full-16 --dtype float32 --device cpu --framework torch"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ["huge"]}, "no size huge: expected some of full-16"),
        ({"dtypes": ["float8"]}, "no dtype float8"),
        ({"witnesses": ["numpy"]}, "no witness numpy"),
        ({"seeds": []}, "there are no seeds"),
        ({"devices": ["nosuch"]}, "'nosuch' names no device"),
        ({"devices": ["nosuch"], "witnesses": ["flax"]}, "'nosuch' names no device.*give --framework"),
    ],
)
def test_what_calibration_cannot_do_is_named(tmp_path, change, message):
    options = {"seeds": [0], "sizes": ["full-16"], "dtypes": ["float32"], "devices": ["cpu"]} | change
    with pytest.raises(ValueError, match=message):
        calibrate(tmp_path / "never.json", **options)
    assert not (tmp_path / "never.json").exists()


def test_sizes_reach_over_heads_depths_widths_and_attentions():
    sizes = SIZES.values()
    assert {size.head for size in sizes} >= {"pretraining", "qa", "causal-lm", "multiple-choice", "masked-lm"}
    assert {size.layers for size in sizes} >= {2, 12}
    assert min(size.hidden for size in sizes) == 16
    assert max(size.hidden for size in sizes) >= 256
    assert {size.sparse for size in sizes} == {None, "original", "transformers"}
    padded = make_case("sparse-32", 0)
    assert (padded.inputs["input_ids"] == padded.config.pad_token_id).any()
    assert not np.array_equal(
        make_case("full-16", 0).weights["pooler.bias"], make_case("full-16", 1).weights["pooler.bias"]
    )


def test_errors_grow_no_faster_than_the_table_says():
    """Each kind scatters; their median lies between no growth and the law of the table (a root, or in proportion)."""
    like = BigBirdSize("pretraining", 1, 32, 2, 32)
    exponents = growth_exponents((1, 2, 4, 8, 12), range(3), like)
    accumulated = [x for (error, _), x in exponents.items() if error == "accumulated"]
    gradients = [x for (error, kind), x in exponents.items() if error == "gradient" and kind != "grad.transform"]
    assert min(len(accumulated), len(gradients)) > 8
    assert 0.1 < np.median(accumulated) < 0.5
    assert 0.2 < np.median(gradients) < 1
