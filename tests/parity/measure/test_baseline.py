"""The gate lets unchanged code pass, and notices errors that grow within tolerance and comparisons that vanish."""

import json
import re
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from parity.checks.integrity import Check
from parity.measure.baseline import RESOLUTION, Regression, check, new_keys, save
from parity.measure.metrics import Difference
from parity.reports.json_file import to_json
from parity.reports.report import Report
from parity.witnesses.with_torch import TorchWitness
from tests.parity.small_results import run

SEEDS = 3


@pytest.fixture(scope="module")
def runs(converted):
    """Runs with different seeds; the last three are no part of the baseline."""
    return [loose(run(converted("mini-pretrain"), seed=seed)) for seed in range(SEEDS + 3)]


@pytest.fixture(scope="module")
def baseline(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("baseline") / "baseline.json"
    save(runs[:SEEDS], path)
    return path


def loose(result):
    """The same result with tolerances 100 times as wide, so that errors may grow and stay within them."""

    def widened(row):
        tolerance = replace(row.tolerance, bound=row.tolerance.bound * 100)
        return replace(row, tolerance=tolerance, difference=replace(row.difference, excess=row.difference.excess / 100))

    return replace(result, rows=[widened(row) for row in result.rows])


def scaled(result, factor, tap="layer.1.context"):
    """The same result with a larger error at one tap."""

    def grown(row):
        d = row.difference
        return replace(row, difference=replace(d, would_pass=d.would_pass * factor, excess=d.excess * factor))

    return replace(result, rows=[grown(row) if row.tap == tap else row for row in result.rows])


def test_other_seeds_pass(runs, baseline):
    for result in runs:
        assert check(result, baseline) == []
        assert new_keys(result, baseline) == []


def test_the_file_holds_mean_and_maximum_of_every_key(runs, baseline):
    values = json.loads(baseline.read_text())
    rows = [row for row in runs[0].rows if row.part is None]
    assert len(values["figures"]) == len(rows)
    errors = [max(row.difference.would_pass for row in result.rows if (row.head, row.tap, row.error) ==
                  ("qa", "layer.0.context", "accumulated")) for result in runs[:SEEDS]]  # fmt: skip
    (entry,) = (x for x in values["figures"] if (x["head"], x["tap"], x["error"]) ==
                ("qa", "layer.0.context", "accumulated"))  # fmt: skip
    assert entry["mean"] == pytest.approx(np.mean(errors), rel=1e-3)
    assert entry["max"] == pytest.approx(max(errors), rel=1e-3)
    assert entry["spread"] == pytest.approx(np.std(np.log(errors), ddof=1), rel=1e-2)


def test_the_file_is_sorted_and_one_line_per_figure(runs, baseline, tmp_path):
    text = baseline.read_text()
    values = json.loads(text)
    keys = [tuple(x[name] for name in ("head", "condition", "pair", "error", "tap")) for x in values["figures"]]
    assert keys == sorted(keys)
    assert sum(line.startswith("  {") for line in text.splitlines()) == len(keys)
    save(list(reversed(runs[:SEEDS])), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == text


def test_the_limit_follows_from_the_spread(tmp_path, runs):
    """Runs that vary more allow more growth; a single tap's limit is that of the formula."""
    limits = {}
    for name, spread in {"narrow": 0.02, "wide": 0.3}.items():
        results = []
        for x in (-1, 0, 1):
            own = scaled(runs[0], 1, tap="")
            for tap in {row.tap for row in own.rows}:
                own = scaled(own, np.exp(x * spread), tap)
            results.append(own)
        assert all(result.passed for result in results)
        save(results, tmp_path / f"{name}.json")
        found = check(scaled(runs[0], 900), tmp_path / f"{name}.json")
        limits[name] = float(re.search(r"limit (\S+)$", found[0].detail)[1])
        keys = len(json.loads((tmp_path / f"{name}.json").read_text())["figures"])
        quantile = -np.sqrt(6) / np.pi * (np.euler_gamma + np.log(-np.log1p(-0.01 / keys)))
        typical = max(row.difference.would_pass for row in runs[0].rows if row.head == found[0].key[0]
                      and row.tap == "layer.1.context" and row.error == found[0].key[3])  # fmt: skip
        assert limits[name] == pytest.approx(typical * np.exp(quantile * spread * np.sqrt(4 / 3)), rel=1e-2)
    assert limits["wide"] > 3 * limits["narrow"]


def test_growth_within_tolerance_is_a_regression(runs, baseline):
    grown = scaled(runs[SEEDS], 4)
    assert grown.passed
    found = check(grown, baseline)
    assert {(x.what, x.key[0], x.key[3], x.key[4]) for x in found} == {
        ("grew", head, error, "layer.1.context") for head in ("masked-lm", "qa") for error in ("accumulated", "local")
    }
    assert re.search(r"error \d\.\d+e-0[67], at most \d\.\d+e-0[67] in 3 runs, limit \d\.\d+e-0[67]", str(found[0]))


def test_a_loss_of_precision_is_caught(converted, baseline):
    """A fault of the model's own: contexts rounded to 19 bits are within tolerance, and not what they were."""
    right = TorchWitness.step

    def rounded(self, step, stream):
        taps, after = right(self, step, stream)
        name = f"{step.name}.context"
        mantissa, exponent = np.frexp(taps[name])
        taps[name] = np.ldexp(np.round(mantissa * 2**17) / 2**17, exponent).astype(np.float32)
        return taps, after

    with patch.object(TorchWitness, "step", rounded):
        result = loose(run(converted("mini-pretrain"), seed=SEEDS))
    assert result.passed
    found = check(result, baseline)
    assert {x.what for x in found} == {"grew"}
    assert {x.key[4] for x in found} == {"layer.0.context", "layer.1.context"}


def test_what_disappears_is_named_as_broadly_as_it_is_gone(runs, baseline):
    def without(condition):
        rows = [row for row in runs[0].rows if not condition(row)]
        assert len(rows) < len(runs[0].rows)
        return [(x.what, x.key, x.detail) for x in check(replace(runs[0], rows=rows), baseline)]

    ((what, key, detail),) = without(lambda row: row.head == "qa")
    assert (what, key) == ("disappeared", ("qa",))
    assert re.fullmatch(r"this head is not compared any more \(\d+ figures\)", detail)
    pair = ("masked-lm", "1x528", "torch against reference")
    ((_, key, _),) = without(lambda row: row.head == "masked-lm" and row.error == "local")
    assert key == (*pair, "local")
    layer = without(lambda row: row.head == "masked-lm" and row.tap.startswith("layer.1."))
    assert [key for _, key, _ in layer] == [(*pair, "accumulated", "layer 1"), (*pair, "local", "layer 1")]
    ((_, key, _),) = without(lambda row: (row.head, row.tap, row.error) == ("masked-lm", "layer.0.key", "local"))
    assert key == (*pair, "local", "layer.0.key")
    assert len(without(lambda row: True)) == 3


def test_a_pair_that_disappears_is_a_regression(runs, tmp_path):
    both = [replace(x, rows=[*x.rows, *(replace(row, value="flax") for row in x.rows)]) for x in runs[:2]]
    save(both, tmp_path / "b.json")
    found = check(runs[0], tmp_path / "b.json")
    assert {x.key for x in found} == {(head, "1x528", "flax against reference") for head in ("base", "masked-lm", "qa")}
    assert all(x.what == "disappeared" for x in found)


def test_rows_count_for_every_head_that_they_stand_for(converted, runs, tmp_path):
    """Heads in another order share their layers the other way round; nothing disappears."""
    folder = converted("mini-pretrain")
    save([run(folder, heads=("base",), seed=seed) for seed in range(2)], tmp_path / "b.json")
    assert runs[0].rows[0].head == "masked-lm"
    assert check(runs[0], tmp_path / "b.json") == []
    assert ("masked-lm", "1x528", "torch against reference", "local", "logits") in new_keys(
        runs[0], tmp_path / "b.json"
    )


def test_a_run_that_failed_does_not_pass_whatever_its_errors_are(runs, baseline):
    """A check that failed, errors beyond their tolerance, a head that was asked for and not compared."""
    result = runs[SEEDS]
    assert check(result, baseline) == []
    checks = [*result.checks, Check("torch weights", False, "1 of 46 differ")]
    (found,) = check(replace(result, checks=checks), baseline)
    assert (found.what, str(found)) == ("failed", "torch weights: 1 of 46 differ")
    (found,) = check(replace(result, heads=[*result.heads, "causal-lm"]), baseline)
    assert (found.what, found.key) == ("failed", ("causal-lm", "1x528"))
    rows = [replace(row, difference=replace(row.difference, excess=2)) for row in result.rows[:1]] + result.rows[1:]
    (found,) = check(replace(result, rows=rows), baseline)
    assert (found.what, found.key[4]) == ("failed", result.rows[0].tap)
    assert {x.what for x in check(replace(result, conditions=[]), baseline)} == {"failed"}


def test_a_run_of_another_dtype_is_refused(runs, baseline):
    (condition,) = runs[0].conditions
    for changed in ({"dtype": "float64"}, {"torch_device": "cuda"}, {"overrides": {"random_blocks": "transformers"}}):
        other = replace(runs[0], conditions=[replace(condition, **changed)])
        with pytest.raises(ValueError, match="in the baseline, and with"):
            check(other, baseline)
        with pytest.raises(ValueError, match="different conditions"):
            save([runs[1], other], baseline.with_name("other.json"))


def test_no_figure_is_a_regression(runs, baseline):
    rows = list(runs[0].rows)
    rows[3] = replace(rows[3], difference=Difference(problem="NaN or Inf"))
    (found,) = check(replace(runs[0], rows=rows), baseline)
    assert isinstance(found, Regression)
    assert (found.what, found.key[4]) == ("no figure", rows[3].tap)


def test_errors_below_float32_are_no_growth(runs, tmp_path):
    """What was exact in every run, such as equal ids, may be off by one rounding."""
    exact = [scaled(result, 0, "logits") for result in runs[:SEEDS]]
    save(exact, tmp_path / "b.json")
    assert check(exact[0], tmp_path / "b.json") == []

    def logits(error):
        return replace(runs[0], rows=[
            replace(row, difference=replace(row.difference, would_pass=error)) if row.tap == "logits" else row
            for row in runs[0].rows
        ])  # fmt: skip

    assert check(logits(RESOLUTION), tmp_path / "b.json") == []
    assert {x.what for x in check(logits(20 * RESOLUTION), tmp_path / "b.json")} == {"grew"}


def test_bad_runs_make_no_baseline(runs, failing, tmp_path):
    path = tmp_path / "b.json"
    with pytest.raises(ValueError, match="at least 2 runs with different seeds"):
        save(runs[:1], path)
    with pytest.raises(ValueError, match="run 2 of 2 failed"):
        save([runs[0], failing.result], path)
    with pytest.raises(ValueError, match="two runs have the same errors"):
        save([runs[0], runs[1], runs[0]], path)
    with pytest.raises(ValueError, match="runs 1 and 2 compared different things, such as qa, 1x528"):
        save([runs[0], replace(runs[1], rows=runs[1].rows[:-1], heads=runs[1].heads[:2])], path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a baseline that parity baseline save wrote"),
        ("[]", "TypeError"),
        ('{"version": 7}', "its version is 7, expected 1"),
        ('{"version": 1, "figures": []}', "KeyError: 'runs'"),
        ('{"version": 1, "figures": [], "runs": 2, "false_alarm": 0.01, "spread": {}}', "it holds no figure"),
    ],
)
def test_what_is_no_baseline_is_refused(runs, tmp_path, text, message):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        check(runs[0], tmp_path / "b.json")


def test_on_the_command_line(runs, tmp_path):
    for i, result in enumerate([*runs[:SEEDS], runs[SEEDS], scaled(runs[SEEDS], 4)]):
        (tmp_path / f"{i}.json").write_text(json.dumps(to_json(Report(result))))

    def invoke(*arguments):
        done = CliRunner().invoke(
            main, ["parity", "baseline", *(str(tmp_path / x) if ".json" in x else x for x in arguments)]
        )
        return done.exit_code, done.output

    assert invoke("save", "b.json", "0.json", "1.json", "2.json") == (0, f"{tmp_path / 'b.json'}: from 3 runs\n")
    assert invoke("check", "b.json", "3.json") == (0, "PASSED: 0 regressions, 0 new figures\n")
    code, output = invoke("check", "b.json", "4.json")
    assert code == 1
    assert output.startswith("grew: masked-lm, 1x528, torch against reference, accumulated, layer.1.context: error ")
    assert output.endswith("FAILED: 4 regressions, 0 new figures\n")
    assert invoke("save", "c.json", "0.json")[0] == 2
    assert invoke("check", "absent.json", "0.json")[0] == 2
