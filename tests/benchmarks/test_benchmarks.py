"""The benchmarks run, refuse to time what differs, and what the pages show is what was measured."""

import importlib
import json
import re
import sys

import numpy as np
import pytest

pytest.importorskip("transformers")

from benchmarks import __main__ as runner
from benchmarks import measure, plots, report, summaries
from benchmarks.growth import exponent
from benchmarks.report import Row

# What transformers and the libraries below it warn of is not ours.
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
RECORD = report.ROOT / "docs/benchmarks.json"


@pytest.fixture
def in_this_process(monkeypatch):
    """Cases without processes of their own, which would each import everything again."""

    def run(function, **case):
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(case)))

    for module in [runner, *(importlib.import_module(f"benchmarks.{name}") for name in runner.SUBJECTS)]:
        if hasattr(module, "run_alone"):
            monkeypatch.setattr(module, "run_alone", run)


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--repeats", "1", *map(str, arguments)])
    runner.main()


@pytest.mark.slow
def test_every_subject_runs(in_this_process, monkeypatch, tmp_path, capsys):
    file = tmp_path / "figures.json"
    run_main(monkeypatch, "--quick", "--json", file)
    record = json.loads(file.read_text())
    assert record["versions"]["transformers"].startswith("4.57")
    assert record["machine"]["threads"] == 1
    assert list(record["subjects"]) == list(runner.SUBJECTS)
    for subject in record["subjects"].values():
        assert {result["framework"] for result in subject["results"]} == {"torch", "flax"}
        assert subject["rows"]
        for row in subject["rows"]:
            # memory of this process says nothing, so that its growth may be any number
            figures = [figure for figure in (row["peer"], row["ours"]) if figure is not None]
            assert all(np.isfinite(figure) and (figure > 0 or row["unit"] == "exponent") for figure in figures), row
            assert row["met"] is None, row
        assert all(0 < result["max_abs_difference"] < 1e-5 for result in subject["results"])
    said = capsys.readouterr().out
    assert all(row["what"] in said for subject in record["subjects"].values() for row in subject["rows"])


def test_the_other_subjects_of_a_file_stay(in_this_process, monkeypatch, tmp_path):
    file = tmp_path / "figures.json"
    for name in ("attention", "encoder_layer"):
        monkeypatch.setattr(f"benchmarks.{name}.QUICK", importlib.import_module(f"benchmarks.{name}").QUICK[:1])
        run_main(monkeypatch, name, "--quick", "--json", file)
    record = json.loads(file.read_text())
    assert list(record["subjects"]) == ["attention", "encoder_layer"]
    file.write_text(json.dumps(record | {"versions": {"torch": "1"}}))  # those were measured with another torch
    run_main(monkeypatch, "attention", "--quick", "--json", file)
    assert list(json.loads(file.read_text())["subjects"]) == ["attention"]


PAIRS = [(name, framework) for name in runner.SUBJECTS for framework in ("torch", "flax")]
PAIRS.remove(("train_step", "flax"))  # optimizers alone: no model is called


@pytest.mark.parametrize(("name", "framework"), PAIRS)
@pytest.mark.quick(
    "attention-flax", "attention-torch", "encoder_layer-torch", "growth-torch", "first_call-torch", "model-torch"
)
def test_nothing_is_timed_that_differs(name, framework, in_this_process, monkeypatch, tmp_path):
    """A wrong number in our attention ends the run, and no file is written."""
    attention = importlib.import_module(f"models_{framework}.attention.block_sparse")
    layer = importlib.import_module(f"models_{framework}.bigbird.layer")
    right = attention.block_sparse_attention

    def wrong(*arguments):
        context_BLNH = right(*arguments)
        return context_BLNH + 0.1 * (context_BLNH == context_BLNH[0, 0, 0, 0])  # of a token that is no padding

    for module in (attention, layer):
        monkeypatch.setattr(module, "block_sparse_attention", wrong)
    if framework == "flax":  # what was compiled before holds the right one, and what is now must not stay
        encoder = importlib.import_module("models_flax.bigbird.encoder")
        monkeypatch.setattr(encoder, "_KINDS", encoder.layer_kinds(encoder.BigBirdLayer))
    subject = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(subject, "QUICK", [case for case in subject.QUICK if case["framework"] == framework])
    with pytest.raises(measure.DifferentError, match="differ by"):
        run_main(monkeypatch, name, "--quick", "--json", tmp_path / "figures.json")
    assert not (tmp_path / "figures.json").exists()


def test_a_process_that_fails_ends_the_run_with_what_it_said():
    with pytest.raises(SystemExit, match="something: the two differ by 1.0") as error:
        measure.run_alone("benchmarks.measure:check_equal", what="something", ours=[[1.0]], peer=[[2.0]])
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    ("ours", "peer"),
    [([1.0], [1.00002]), ([np.nan], [1.0]), ([np.nan], [np.nan]), ([], []), ([1.0, 1.0], [1.0]), ([[1.0]], [1.0])],
)
def test_what_is_not_equal(ours, peer):
    with pytest.raises(measure.DifferentError, match="something"):
        measure.check_equal("something", [np.array(ours)], [np.array(peer)])


def test_what_is_equal():
    found = measure.check_equal("something", [np.array([100.0005, 1])], [np.array([100.0, 1])])
    assert found == pytest.approx(5e-4)


def test_verdicts():
    assert [Row("a", "ms", 8.0, 2.0, goal).met for goal in (4, 4.001, None)] == [True, False, None]
    assert [Row("a", "MiB", 8.0, 2.0, goal, "ours").met for goal in (2, 1.999)] == [True, False]
    assert Row("a", "ms", 800.0, 201.0, 4).cells() == ("a, ms", "800", "201", "3.98x", ">= 4x", "missed")
    assert Row("a", "MiB", None, 2.0, 2, "ours").cells() == ("a, MiB", "", "2.00", "", "<= 2", "met")


def test_an_exponent_is_the_slope_of_the_logarithms():
    assert exponent([{"length": n, "ms": 3 * n**1.25} for n in (4096, 8192, 65536)], "ms") == pytest.approx(1.25)


@pytest.fixture(scope="module")
def record():
    return report.read_record(RECORD)


def test_the_pages_show_what_was_measured(record):
    assert not record["quick"]
    assert record["subjects"].keys() <= set(runner.SUBJECTS)
    texts, shown = report.tables(record), set()
    for path in report.PAGES:
        page = path.read_text(encoding="utf-8")
        assert report.filled(page, texts) == page, f"{path.name}: python -m benchmarks --report fills it in"
        shown |= set(re.findall(r"<!-- measured: (\w+) -->", page))
    assert shown == set(texts)
    assert report.filled("<!-- measured: all -->\nold\n<!-- end -->", {"all": "new"}).split("\n")[1] == "new"


def test_the_plots_show_what_was_measured(record):
    for name, panels in (("attention", plots.ATTENTION), ("growth", plots.GROWTH)):
        if name not in record["subjects"]:
            continue
        results = [result for result in record["subjects"][name]["results"] if not result.get("backward")]
        drawn = (report.ROOT / f"docs/{name}.svg").read_text(encoding="utf-8")
        labels = [label for panel in panels for *_, label in plots.curves(results, panel).values()]
        assert len(labels) == 8
        assert all(f">{label}<" in drawn for label in labels)


@pytest.mark.slow
@pytest.mark.parametrize("what", list(summaries.CASES))
def test_summaries_are_measured_against_transformers(what):
    case = summaries.QUICK[what]
    results = [summaries.measure(what, framework, 1, **case) for framework in report.FRAMEWORKS]
    names = [row.what for row in summaries.rows(results)]
    assert names == [f"{what}, torch", f"{what}, torch with fast_linears", f"{what}, Flax (against torch)"]
    assert all(row.peer and row.ours > 0 for row in summaries.rows(results))


def test_goals_of_summaries_are_missed_where_they_are():
    torch = {"what": "greedy", "framework": "torch", "peer_ms": 30.0, "ours_ms": 20.0, "fast_ms": 21.0}
    flax = {"what": "greedy", "framework": "flax", "ours_ms": 21.0}
    assert [row.met for row in summaries.rows([torch, flax])] == [True, False, False]
