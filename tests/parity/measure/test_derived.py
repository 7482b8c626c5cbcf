"""Tolerances of devices that nobody measured follow from the CPU's, and say so."""

import math

import pytest

from bigbird_port.families.registry import family_named
from parity.measure.derived import ARITHMETICS, DERIVED, check_judged_dtype, ratio
from parity.measure.tolerances import MEANINGLESS, Table, derived_entry, shipped_table, tolerance_for

# unit and accumulator as powers of 2, terms, passes, and what a product loses: written anew, from docs/on-device.md
MODELS = {
    ("cpu", "float32"): (-24, -24, 512, 1, 0.0),
    ("cuda", "float32"): (-24, -24, 4096, 1, 0.0),
    ("tpu", "float32"): (-24, -24, 4096, 6, 4 * 2.0**-27),
    ("cpu", "bfloat16"): (-9, -24, 512, 1, 0.0),
    ("cuda", "bfloat16"): (-9, -24, 4096, 1, 512 * 2.0**-23),
    ("tpu", "bfloat16"): (-9, -24, 4096, 1, 0.0),
    ("cpu", "float16"): (-11, -24, 512, 1, 0.0),
    ("cuda", "float16"): (-11, -24, 4096, 1, 512 * 2.0**-23),
}


def share(device, dtype):
    unit, accumulator, terms, passes, product = MODELS[device, dtype]
    return math.sqrt(4.0**unit + 4.0**accumulator * passes * terms / 6 + product**2 / 3)


@pytest.mark.parametrize("family", ["bigbird", "pegasus"])
@pytest.mark.parametrize("device", ["cuda", "tpu"])
def test_every_derived_bound_is_the_measured_worst_times_factor_and_model(family, device):
    table, derived = shipped_table(family_named(family)), 0
    for entry in table.entries.values():
        one = derived_entry(table, entry.kind, entry.dtype, device, entry.error)
        if (device, entry.dtype) not in MODELS:
            assert one is None
            continue
        factor = entry.factor * share(device, entry.dtype) / share("cpu", entry.dtype)
        assert one.factor == pytest.approx(factor, rel=1e-12)
        assert one.bound == pytest.approx(entry.worst * factor, rel=1e-12)
        assert (one.worst, one.growth, one.floor, one.samples) == (
            *(entry.worst, entry.growth, entry.floor, entry.samples),
        )
        assert one.reason.startswith(f"{DERIVED}: "), one.reason
        assert f"loses {ratio(device, entry.dtype):.3g} times" in one.reason
        assert one.at.startswith("on the CPU: ")
        assert one.bound >= entry.bound
        derived += 1
    assert derived > 50 * (device == "cuda") * (family == "bigbird") + 40


def test_the_models_are_those_of_the_documentation():
    assert set(ARITHMETICS) == set(MODELS)
    for key, one in ARITHMETICS.items():
        assert one.share == pytest.approx(share(*key), rel=1e-12), key
    assert ratio("cuda:1", "float32") == ratio("cuda", "float64") == pytest.approx(2.81, abs=0.01)
    assert ratio("tpu", "float32") == pytest.approx(6.89, abs=0.01)
    assert ratio("cuda", "bfloat16") == pytest.approx(1, abs=1e-3)
    assert ratio("cpu", "float32") == 1


def test_what_was_measured_on_the_device_wins():
    derived = tolerance_for("layer.0.output", "float32", "cuda", "local", 0)
    assert derived.derived
    assert derived.key == "output/float32/cuda/local"
    assert not tolerance_for("layer.0.output", "float32", "cpu", "local", 0).derived
    table = shipped_table()
    own = derived_entry(table, "output", "float32", "cuda", "local")
    measured = table.joined(Table({own.key: own}, "made", {}, {}))
    assert not tolerance_for("layer.0.output", "float32", "cuda", "local", 0, measured).derived


def test_what_would_excuse_all_is_not_derived():
    """Neither where the CPU has no bound, nor where the device's would be too wide."""
    with pytest.raises(ValueError, match=r"grad.beta/bfloat16/cuda/gradient.*on the CPU it is off by 0.82"):
        tolerance_for("grad.pooler.beta", "bfloat16", "cuda", "gradient", 1)
    table = shipped_table()
    wide = table.entries["output/float32/cpu/local"]
    wide = type(wide)(**(vars(wide) | {"worst": 0.1, "bound": 0.4}))
    table = Table({wide.key: wide}, "made", {}, {})
    assert tolerance_for("layer.0.output", "float32", "cpu", "local", 0, table).bound < MEANINGLESS
    with pytest.raises(ValueError, match="it may be off by 1.1 of its scale, which would excuse all"):
        tolerance_for("layer.0.output", "float32", "cuda", "local", 0, table)


@pytest.mark.parametrize(
    ("dtype", "device", "message"),
    [
        ("float64", "tpu:0", "a TPU has no float64.*pairs of float32.*choose --dtype float32"),
        ("float16", "tpu", "nothing is known of float16 on tpu.*calibrate --dtype float16 --device tpu"),
    ],
)
def test_types_that_a_device_has_not_are_refused(dtype, device, message):
    with pytest.raises(ValueError, match=message):
        check_judged_dtype(dtype, device, None)


def test_types_that_a_device_has_are_taken():
    for dtype, device in (("float64", "cuda"), ("float32", "tpu"), ("bfloat16", "tpu:3"), ("float16", "cpu")):
        check_judged_dtype(dtype, device, None)
    entry = shipped_table().entries["output/float16/cpu/local"]
    measured = type(entry)(**(vars(entry) | {"device": "tpu"}))
    check_judged_dtype("float16", "tpu", Table({measured.key: measured}, "made", {}, {}))
