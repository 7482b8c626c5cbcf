"""Every fault of BigBird-Pegasus is caught, and what it does not change stays green."""

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.families.pegasus.family import PEGASUS
from parity.faults.catalogue import faults_of
from parity.faults.matrix import run_faults

SUMMARIES = "conditional-generation"
FAULTS = faults_of(PEGASUS)
FEW = ("cross-mask-dropped", "cross-keys-normed", "numerator-masked", "labels-shifted", "start-id-zero")


def judged(proof):
    """The detections of a proof that is right, each at its place."""
    assert proof.clean
    assert [run.problem for run in proof.clean if run.problem] == []
    assert [(found.fault, found.head, found.verdict) for found in proof.failures] == []
    caught = [found for found in proof.detections if found.verdict == "caught"]
    assert [(found.fault, found.head, found.tap) for found in caught if not found.at_expected] == []
    return proof.detections


def test_the_catalogue_has_what_is_new():
    for name in (
        *("layer-norm-epsilon", "encoder-norm-missing", "decoder-norm-missing", "encoder-norm-twice"),
        *("decoder-norm-twice", "cross-keys-normed", "positions-offset", "scale-missing", "scaled-twice"),
        *("output-scaled", "start-id-zero", "labels-shifted", "numerator-masked", "causal-off-by-one"),
        *("cross-mask-dropped", "slot-off-by-one", "other-penalty", "unfinished-normalised"),
        "copies-in-place-of-sharing",
    ):
        assert FAULTS[name].what.endswith(".")
        assert FAULTS[name].heads <= set(PEGASUS.heads)


def test_some_are_caught_in_torch():
    found = judged(run_faults(heads=[SUMMARIES], names=FEW, family=PEGASUS))
    assert {one.fault: one.verdict for one in found} == dict.fromkeys(FEW, "caught")


def test_searches_are_caught_in_torch():
    names = ["other-penalty", "unfinished-normalised"]
    found = judged(run_faults(heads=[SUMMARIES], names=names, family=PEGASUS))
    assert {one.fault: one.verdict for one in found} == dict.fromkeys(names, "caught")


def test_coupled_gradients_that_are_not_added_are_caught():
    (found,) = judged(run_faults(heads=[SUMMARIES], names=["copies-in-place-of-sharing"], family=PEGASUS))
    assert (found.verdict, found.tap.split(".")[:2]) == ("caught", ["grad", "encoder"])


def test_a_cache_that_is_wrong_is_caught_in_compiled_layers():
    (found,) = judged(run_faults(into="flax", heads=["causal-lm"], names=["slot-off-by-one"], family=PEGASUS))
    assert (found.verdict, found.tap) == ("caught", "logits")


@pytest.mark.slow
@pytest.mark.parametrize("into", ["torch", "flax"])
@pytest.mark.parametrize("head", list(PEGASUS.heads))
def test_every_fault_is_caught(head, into):
    found = judged(run_faults(into=into, heads=[head], family=PEGASUS))
    assert {one.fault for one in found} == {name for name, fault in FAULTS.items() if head in fault.heads} - (
        {"copies-in-place-of-sharing"} if head == "causal-lm" else set()
    )
    assert [one.fault for one in found if one.verdict != "caught"] == []


def test_on_a_folder_what_changes_nothing_stays_green(converted):
    """The negative control: a model whose loss is not smoothed, and that is not coupled."""
    names = ["copies-in-place-of-sharing", "causal-off-by-one"]
    run = CliRunner().invoke(
        main,
        ["parity", "faults", str(converted("mini-pegasus")), "--head", SUMMARIES]
        + [part for name in names for part in ("--fault", name)],
    )
    assert run.exit_code == 0, run.output
    assert "0 missed" in run.output


def test_the_list_is_the_familys():
    run = CliRunner().invoke(main, ["parity", "faults", "--family", "pegasus", "--list"])
    assert run.exit_code == 0
    assert "unfinished-normalised: code (conditional-generation): Beams that have no end" in run.output
    assert "pooler" not in run.output


def test_bisection_says_that_it_cannot(converted):
    run = CliRunner().invoke(main, ["parity", "bisect", str(converted("mini-pegasus")), "--head", "base"])
    assert run.exit_code == 2
    assert "there are no steps of bisection for BigBird-Pegasus yet" in run.output
