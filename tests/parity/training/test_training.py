"""parity --training: clean runs pass, every mistake is caught, and the reports show both."""

import json
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.training.carried import Asked
from parity.reports.json_file import from_json, to_json
from parity.reports.page import to_html
from parity.reports.report import Report
from parity.training.curves import curves, steps_table
from parity.training.faults import FAULTS, detect, detection_matrix, first_off
from parity.training.golden import read_steps
from parity.training.made import make_run
from parity.training.rules import UPDATES
from parity.training.run import TrainingOptions, run_training
from parity.training.tolerances import FACTOR, shipped, tolerance
from tests.conftest import GOLDEN, require
from tests.training.steps import MINI, steps_of

QUICK = TrainingOptions(who=("reference", "torch"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function: optimizer, and what a fault asks for -> a small run, made once."""
    folder, done = tmp_path_factory.mktemp("made"), {}

    def get(optimizer, fault=None):
        training, sizes = (fault.training, fault.sizes) if fault else ({}, {})
        key = (optimizer, str(training), str(sizes))
        if key not in done:
            done[key] = make_run(folder / str(len(done)), optimizer, 0, training=training, **sizes)
        return done[key]

    return get


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini") / "out"
    convert(steps_of(MINI).checkpoint, out, Settings(training=Asked()))
    return out


@pytest.fixture(scope="module")
def result(mini):
    """Of the original's own steps, with torch."""
    steps = read_steps(steps_of(MINI).folder / "steps.safetensors")
    return run_training(mini, None, TrainingOptions(who=("reference", "torch"), golden=steps))


def test_the_originals_own_steps_pass(result):
    assert result.passed, [(row.condition, row.tap, row.difference.excess) for row in result.failures][:5]
    pairs = {(row.value, row.reference) for row in result.rows}
    assert pairs == {("torch", "reference"), ("torch", "original"), ("reference", "original")}
    assert len(result.conditions) == 8
    of_original = [row for row in result.rows if row.reference == "original" and row.tap.startswith("after.")]
    assert {row.condition for row in of_original} == {f"step {10 + n}" for n in (1, 2, 4, 8)}  # what was kept
    assert any(row.tap.endswith("/m") for row in of_original)


@pytest.mark.parametrize("optimizer", [pytest.param(x, marks=pytest.mark.slow) for x in UPDATES])
def test_a_clean_run_is_not_caught(optimizer, made):
    assert not first_off("none", made(optimizer), QUICK).caught


QUICKLY = {"bias-correction", "no-decay-on-transform", "tied-weight-updated-twice"}  # all in make test-slow
CASES = [
    pytest.param(fault, optimizer, id=f"{fault.name}-{optimizer}",
                 marks=() if fault.name in QUICKLY else pytest.mark.slow)
    for fault in FAULTS for optimizer in fault.optimizers
]  # fmt: skip


@pytest.mark.parametrize(("fault", "optimizer"), CASES)
def test_every_mistake_is_caught(fault, optimizer, made):
    found = detect(fault, made(optimizer, fault), QUICK)
    assert found.caught, fault.name
    assert found.factor > 2


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", list(UPDATES))
def test_clean_runs_stay_green_over_twenty_seeds(optimizer, tmp_path):
    for seed in range(100, 120):
        out = make_run(tmp_path / str(seed), optimizer, seed)
        found = first_off("none", out, TrainingOptions(who=("reference", "torch"), seed=seed))
        assert not found.caught, (seed, found)


@pytest.mark.slow
def test_flax_takes_the_same_steps(made):
    found = run_training(made("Adafactor"), None, TrainingOptions())
    assert found.passed, [(row.value, row.condition, row.tap, row.difference.excess) for row in found.failures][:5]
    assert {row.value for row in found.rows} == {"torch", "flax"}


@pytest.mark.slow
def test_the_matrix_says_what_was_not_injected(mini):
    said = []
    records = detection_matrix(mini, TrainingOptions(who=("reference", "torch"), steps=2, length=32), said.append)
    assert all(record["caught"] for record in records)
    assert any("frozen-bias-trained: not injected: nothing is held still" in line for line in said)
    assert {"bias-correction", "tied-weight-updated-twice"} <= {record["fault"] for record in records}


def test_tolerances_are_what_was_measured():
    """Nothing is set by hand: a bound is the worst that was measured, the factor, and the root of the updates."""
    kinds = {entry.kind for entry in shipped().values()}
    assert {"weight", "loss", "rate", "norm", "drift"} <= kinds
    for entry in shipped().values():
        found = tolerance(entry.optimizer, entry.kind, 3)
        assert found.bound == entry.worst * FACTOR * 3**0.5
        assert entry.samples >= 40
    for optimizer in UPDATES:  # beta2 of the double moves v by 3.7e-6 in eight steps from step 20: the bound lies below
        assert tolerance(optimizer, "drift", 8).bound < 3e-6


def test_reports_show_the_steps(result):
    report = Report(result, None, [{"fault": "x", "head": "y", "caught": True, "tap": "loss", "factor": 3.0}])
    again = from_json(json.loads(json.dumps(to_json(report))))
    assert [row.tap for row in again.result.rows] == [row.tap for row in result.rows]
    page = to_html(report)
    assert "Error over the steps" in page
    ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    lines = list(steps_table(result))
    assert len(lines) == 1 + len(curves(result))
    assert all("OFF" not in line for line in lines)
    kept = next(line for line in lines if "torch against original: weights" in line)
    shown = kept.partition("  worst")[0][38:]  # a column of ten for each step, empty where the original kept nothing
    filled = [n for n in range(8) if shown[10 * n : 10 * n + 10].strip()]
    assert filled == [0, 1, 3, 7]
    assert {curve.group for curve in curves(result)} == {"loss", "learning", "gradient", "after", "slots", "drift"}


def test_the_command_runs_and_writes_reports(made, tmp_path):
    files = {name: tmp_path / f"report.{name}" for name in ("json", "html", "junit", "markdown")}
    options = [item for name, path in files.items() for item in (f"--{name}", str(path))]
    done = CliRunner().invoke(main, ["parity", str(made("AdamWeightDecay")), "--training", "--steps", "2",
                                     "--against", "reference,torch", *options])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "PASSED" in done.output
    assert all(path.stat().st_size for path in files.values())


@pytest.mark.parametrize(("options", "message"), [
    (["--training", "--dtype", "bfloat16"], "--training takes no --dtype"),
    (["--steps", "3"], "--steps is of use with --training"),
    (["--training", "--against", "torch,flax"], "compares with the reference"),
    (["--training", "--golden", "STEPS", "--seed", "3"], "--golden brings its own batches"),
    (["--training", "--golden", "STEPS", "--steps", "9"], "it holds 8 steps: --steps is 9"),
    (["--training", "--head", "masked-lm", "--head", "qa"], "of one head"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(options, message, mini):
    steps = str(steps_of(MINI).folder / "steps.safetensors")
    done = CliRunner().invoke(main, ["parity", str(mini), *(steps if x == "STEPS" else x for x in options)])
    assert done.exit_code == 2, done.output
    assert message in done.output


def test_steps_of_another_state_are_refused(made):
    steps = read_steps(steps_of(MINI).folder / "steps.safetensors")
    with pytest.raises(ValueError, match="its steps begin at 10, but the state is at 3"):
        run_training(made("AdamWeightDecay"), None, TrainingOptions(golden=steps))


def test_a_model_without_a_state_is_refused(tmp_path):
    convert(steps_of(MINI).checkpoint, tmp_path / "out")
    done = CliRunner().invoke(main, ["parity", str(tmp_path / "out"), "--training"])
    assert done.exit_code == 2
    assert "no training state" in done.output


def test_a_family_without_a_reference_is_refused(tmp_path):
    convert(require(GOLDEN["mini-pegasus"]).checkpoint, tmp_path / "out", Settings(training=Asked()))
    done = CliRunner().invoke(main, ["parity", str(tmp_path / "out"), "--training"])
    assert done.exit_code == 2
    assert "no float64 reference of how BigBird-Pegasus trains" in done.output
