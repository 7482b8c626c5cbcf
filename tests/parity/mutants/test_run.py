"""What becomes of mutants: caught, raised, too slow, the same, or seen by nothing but a probe."""

import json
import os
from dataclasses import replace
from unittest import mock

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from parity.mutants import run as room
from parity.mutants.generate import Mutant
from parity.mutants.probes.probe import difference, flat
from parity.mutants.run import Wanted, run_mutants
from parity.mutants.scope import root
from parity.mutants.score import Outcome, Score, count

FILE = "bigbird_port/sparse/packing.py"
GATES = "tests.parity.mutants.gates"
SMALL = Wanted(only=FILE, workers=2, gate=f"{GATES}.stages")


def mutant(old, new, rule="by hand"):
    """A change of the one place in packing.py that reads ``old``."""
    text = (root() / FILE).read_bytes()
    assert text.count(old.encode()) == 1
    start = text.index(old.encode())
    line = text[:start].count(b"\n") + 1
    module = FILE.removesuffix(".py").replace("/", ".")
    return Mutant(FILE, module, rule, (line, line), start, start + len(old), old, new)


CEILING, FIRST = "np.maximum(-(-ends_B // block_size), 1)", "np.cumsum(counts_B) - counts_B"
MUTANTS = {
    "caught": mutant("ends_B // block_size", "ends_B // block_size + 1"),
    "equivalent": mutant(FIRST, f"({FIRST}) * 1"),
    "raises": mutant("blocks.astype(np.int32)", "blocks.astyp(np.int32)"),
    "not run": mutant("part.rows + first", "part.rows + first"),
}


@pytest.fixture
def outcomes():
    """Run some mutants, with only the cheap probe of patterns."""

    def found(wanted, *mutants, probes=("patterns of many lengths, packed",)):
        kept = [probe for probe in room_probes("torch") if probe.name in probes]
        with (
            mock.patch.object(room, "list_mutants", return_value=(list(mutants), len(mutants))),
            mock.patch("parity.mutants.probes.probe.probes", return_value=kept),
        ):
            return run_mutants(wanted)

    from parity.mutants.probes.probe import probes as room_probes

    return found


def test_each_mutant_gets_the_verdict_that_it_should(outcomes):
    """A change is caught by the stage that compares, a product with 1 is equivalent, a missing name raises."""
    score = outcomes(SMALL, *MUTANTS.values(), probes=())
    found = {outcome.mutant: outcome for outcome in score.outcomes}
    assert {name: found[one].verdict for name, one in MUTANTS.items()} == {name: name for name in MUTANTS}
    caught, raised = found[MUTANTS["caught"]], found[MUTANTS["raises"]]
    assert (caught.level, caught.stage, caught.detail) == ("thorough", "packing", "other blocks")
    assert (raised.level, raised.stage) == ("default", "runs")
    assert "has no attribute 'astyp'" in raised.detail
    total = score.total
    assert (total.default, total.thorough, total.survived, total.same, total.not_run) == (1, 1, 0, 1, 1)
    assert (total.score, total.thorough_score) == (0.5, 1.0)


def test_a_gate_whose_comparison_is_switched_off_scores_nothing(outcomes):
    """The probes say that the mutants change something, and the gate catches none: the negative control."""
    changing = [MUTANTS["caught"], mutant(FIRST, "np.cumsum(counts_B)")]
    score = outcomes(replace(SMALL, gate=f"{GATES}.blind"), *changing)
    assert {outcome.verdict for outcome in score.outcomes} == {"survived"}
    assert score.total.score == score.total.thorough_score == 0
    assert all("patterns of many lengths, packed" in outcome.seen_by for outcome in score.survivors)


def test_a_mutant_that_never_ends_is_caught_by_its_limit(outcomes):
    wrong = mutant("text * n + np.arange(count)", "text + np.arange(count)")
    with mock.patch.object(room, "_AT_LEAST", 2):
        (outcome,) = outcomes(replace(SMALL, gate=f"{GATES}.endless"), wrong, probes=()).outcomes
    assert (outcome.verdict, outcome.level, outcome.detail) == ("timeout", "default", "took too long")


def test_a_gate_that_is_red_without_a_mutant_is_refused(outcomes):
    with pytest.raises(
        ValueError, match="packing is red without any mutant, so it says nothing of mutants: always red"
    ):
        outcomes(replace(SMALL, gate=f"{GATES}.red"), MUTANTS["caught"], probes=())


def test_no_mutant_is_begun_after_the_time_is_up(outcomes):
    score = outcomes(replace(SMALL, seconds=0.0), *MUTANTS.values(), probes=())
    assert score.left == 3
    assert [outcome.verdict for outcome in score.outcomes] == ["not run"]


def test_the_real_gate_catches_a_mutant_of_the_shared_plan(outcomes):
    """One stage of parity on the demo, in a process of its own."""
    wrong = mutant("part.key_blocks + first", "part.key_blocks")
    (outcome,) = outcomes(Wanted(only=FILE, thorough=False, workers=1, gate=f"{GATES}.of_the_demo"), wrong).outcomes
    assert (outcome.verdict, outcome.level) == ("caught", "default")


def test_differences_are_told_from_rounding():
    import numpy as np

    one = flat({"x": np.array([1.0, 1e-3]), "y": (1, "a")}, "")
    assert difference(one, one) == ""
    assert difference(one, flat({"x": np.array([1.0, 1e-3 + 1e-7]), "y": (1, "a")}, "")) == "rounding"
    assert difference(one, flat({"x": np.array([1.0, 2e-3]), "y": (1, "a")}, "")) == ".x"
    assert difference(one, flat({"x": np.array([1.0, np.nan]), "y": (1, "a")}, "")) == ".x"
    assert difference(one, flat({"x": np.array([1.0, 1e-3]), "y": (1, "b")}, "")) == ".y.1: 'a' is 'b'"
    assert difference(one, flat({"x": np.array([1.0]), "y": (1, "a")}, "")) == ".x: [2] is [1]"
    assert difference(one, flat({"x": np.array([1.0, 1e-3])}, "")) == "other values: .y.0"


def test_a_score_counts_what_changes_something():
    score = Score("torch", of=9, outcomes=[Outcome(one, name) for name, one in MUTANTS.items() if name == "equivalent"])
    assert score.total.score is None
    assert count([]).changing == 0
    assert json.loads(json.dumps(score.to_json()))["total"]["same"] == 1


def command(*arguments):
    return CliRunner().invoke(main, ["parity", "mutants", *arguments])


def test_the_command_lists_mutants_and_refuses_what_has_none(tmp_path):
    listed = command("--only", FILE, "--sample", "5", "--list")
    assert listed.exit_code == 0
    assert len(listed.output.splitlines()) == 5
    assert all(line.startswith(f"{FILE}:") for line in listed.output.splitlines())
    refused = command("--only", "README.md")
    assert refused.exit_code == 2
    assert "--only README.md is none of the files that have mutants" in refused.output
    (tmp_path / "notes.txt").write_text("mine")
    refused = command("--only", FILE, "--json", os.fspath(tmp_path / "notes.txt"))
    assert refused.exit_code == 2
    assert "nothing else is overwritten" in refused.output


def test_the_command_prints_and_writes_a_score_and_fails_below_the_least(tmp_path):
    survivor = Outcome(MUTANTS["caught"], "survived", seen_by={"a probe": "x.0"})
    score = Score("torch", of=7, left=2, outcomes=[Outcome(MUTANTS["raises"], "raises", "default", "s", "d"), survivor])
    with mock.patch.object(room, "run_mutants", return_value=score):
        for _ in range(2):  # over what it wrote itself
            found = command("--only", FILE, "--least", "0.9", "--json", os.fspath(tmp_path / "found.json"))
            assert found.exit_code == 1
        assert command("--only", FILE, "--least", "0.5").exit_code == 0
    assert "never caught: bigbird_port/sparse/packing.py" in found.output
    assert "seen by: a probe (x.0)" in found.output
    assert "2 of the mutants that were drawn were not begun in time" in found.output
    assert "FAILED: a plain run catches 50.0%, fewer than the 90.0% asked for with --least" in found.output
    written = json.loads((tmp_path / "found.json").read_text())
    assert [row["verdict"] for row in written["outcomes"]] == ["raises", "survived"]
    assert written["files"][FILE]["score"] == 0.5


def test_a_run_in_which_nothing_counts_fails():
    with mock.patch.object(room, "run_mutants", return_value=Score("torch")):
        found = command("--only", FILE)
    assert found.exit_code == 1
    assert "no mutant changed anything" in found.output
