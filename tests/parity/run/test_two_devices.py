"""A pair on two devices is judged by what each side may be off by, and reports say what was not measured there."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from parity.checks import environment
from parity.measure.derived import DERIVED
from parity.measure.tolerances import read_table, shipped_table
from parity.reports.json_file import from_json, to_json
from parity.reports.markdown import to_markdown
from parity.reports.page import to_html
from parity.reports.report import Report, derived_of, last_line
from parity.reports.terminal import make_console, print_report, to_text
from parity.run import conditions
from parity.run.compare import Scene
from parity.run.conditions import Options
from parity.run.run import run_parity
from parity.witnesses import with_torch
from parity.witnesses.witness import Setting

REAL = np.ones((2, 8), bool)
TAP = "layer.0.output"


def scene(**settings):
    return Scene("base", "2x8", settings, REAL, 1)


def bound(**settings):
    names = tuple(settings)
    return scene(**settings).tolerance(names, "local", TAP).bound


CPU, CUDA, TPU = Setting(), Setting("float32", "cuda:0"), Setting("float32", "tpu")


def test_a_pair_is_judged_by_both_sides():
    alone = {one.device: bound(torch=one, reference=Setting("float64")) for one in (CPU, CUDA, TPU)}
    assert alone["cpu"] < alone["cuda:0"] < alone["tpu"]
    for one in (CPU, CUDA, TPU):
        for other in (CPU, CUDA, TPU):
            assert bound(flax=one, torch=other) == pytest.approx(alone[one.device] + alone[other.device])
    mixed = scene(flax=TPU, torch=CPU).tolerance(("flax", "torch"), "local", TAP)
    assert mixed.key == "output/float32/tpu/local + output/float32/cpu/local"
    assert mixed.derived
    assert mixed.bound == pytest.approx(mixed.worst * mixed.factor)
    assert not scene(flax=CPU, torch=CPU).tolerance(("flax", "torch"), "local", TAP).derived


def test_the_second_side_counts_as_the_first_does():
    """A control: an error that the TPU accounts for passes whichever side it is, and fails between two CPUs."""
    reference = np.random.default_rng(0).standard_normal((2, 8, 4))
    scale = np.sqrt(np.square(reference).mean())
    value = reference + 1.5 * bound(flax=CPU, torch=CPU) * scale
    sides = {"flax": (TPU, CPU), "torch": (CPU, TPU)}
    for first, second in (*sides.values(), (CPU, CPU)):
        row = scene(flax=first, torch=second).row(("flax", "torch"), "local", TAP, (value, reference))
        assert row.passed == (TPU in (first, second))


def test_what_is_exact_stays_exact_on_two_devices():
    assert scene(flax=TPU, torch=CUDA).tolerance(("flax", "torch"), "accumulated", "rand_attn.0").bound == 0


def test_rounding_counts_for_both_sides():
    class Noise:
        def allowed(self, error, tap):
            return np.ones(1)

    def allowed(**settings):
        one = replace(scene(**settings), rounding=None)
        return float(one._allowed(Noise(), tuple(settings), "local", TAP, None)[0])

    assert allowed(torch=CPU, reference=Setting("float64")) == 1
    assert allowed(flax=CPU, torch=CPU) == 2
    assert allowed(flax=TPU, torch=CPU) == pytest.approx(1 + allowed(torch=TPU, reference=Setting("float64")))


@pytest.fixture(scope="module")
def on_cuda(converted):
    """A run whose torch is said to be on cuda:0, and computes on the CPU."""
    cpu = torch.device("cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditions, "torch_device", lambda name: type("Device", (), {"type": "cuda"}))
        for module, name in ((with_torch, "torch_device"), (environment, "find_torch_device")):
            patch.setattr(module, name, lambda name: cpu)
        out = converted("mini-pretrain")
        options = Options(witnesses=("torch", "reference"), torch_device="cuda:0", length=64, batch=1)
        yield run_parity(out, ("base",), options), out, options


def test_every_report_says_that_tolerances_are_derived(on_cuda, capsys):
    result, _, _ = on_cuda
    assert result.passed
    assert result.conditions[0].torch_device == "cuda:0"
    assert all(row.tolerance.derived for row in result.rows)
    assert f"the tolerances of cuda ({len(result.rows)} comparisons) are {DERIVED}" in last_line(result)
    report = Report(result, None)
    for text in (to_text(report), to_markdown(report), to_html(report)):
        assert DERIVED in " ".join(text.split())
    assert to_html(report).count(" derived</td>") >= len({row.tolerance.key for row in result.rows})
    print_report(make_console(), report)
    lines = [line for line in capsys.readouterr().out.splitlines() if "torch / reference" in line]
    assert sum(" derived  pass" in line for line in lines) > 10
    values = json.loads(json.dumps(to_json(report)))
    assert all(entry["derived"] and DERIVED in entry["reason"] for entry in values["tolerances"])
    assert from_json(values).result.rows == result.rows
    for entry in values["tolerances"]:
        del entry["derived"]  # as older reports are
    assert derived_of(from_json(values).result) == ""


def test_a_calibrated_device_is_not_marked(on_cuda, tmp_path):
    result, out, options = on_cuda
    table = json.loads(shipped_table().to_json())
    for entry in table["entries"]:
        entry["device"] = "cuda"
    path = tmp_path / "cuda.json"
    path.write_text(json.dumps(table))
    own = replace(options, tolerances=shipped_table().joined(read_table(path)))
    result = run_parity(out, ("base",), own)
    assert result.passed
    assert derived_of(result) == ""
    assert "derived" not in to_text(Report(result, None))


def test_sums_of_products_are_float32s_while_a_model_is_judged():
    """CUDA may add parts of a half's sum in that half, which no tolerance is made for; afterwards all is as before."""
    matmul, names = torch.backends.cuda.matmul, with_torch._REDUCED
    before = [getattr(matmul, name) for name in names]
    matmul.allow_bf16_reduced_precision_reduction = True
    try:
        with with_torch.pinned():
            assert [getattr(matmul, name) for name in names] == [False, False]
            assert torch.get_float32_matmul_precision() == "highest"
        assert matmul.allow_bf16_reduced_precision_reduction is True
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(matmul, name, value)
