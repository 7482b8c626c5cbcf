"""Every fault of the catalogue turns the comparison red, where it should; and nothing else does."""

import dataclasses
import functools
import importlib
import json
from fnmatch import fnmatch

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.families.bigbird.heads import HEADS
from parity.faults import matrix as faults
from parity.faults.bigbird.catalogue import FAULTS
from parity.faults.catalogue import find_faults
from parity.faults.inject import in_twin
from parity.faults.matrix import Bench, clean_runs, run_faults
from parity.faults.setup import make_setup
from parity.run.compare import Scene

# Fault -> head, module, attention heads (None: not said), query blocks (None: whatever).
LOCATED = {
    "transposed-kernel": ("base", "encoder.layer.1.attention.self.query", (0, 1, 2, 3), None),
    "heads-permuted": ("base", "encoder.layer.0.attention.self.value", (0, 1, 2, 3), None),
    "gamma-beta-swapped": ("base", "encoder.layer.0.attention.output", (), None),
    "bfloat16-weight": ("base", "encoder.layer.1.output", (), None),
    "one-element": ("base", "encoder.layer.0.intermediate", (), None),
    "one-random-block": ("base", "encoder.layer.0.attention.self", (1,), (12,)),
    "border-counted-twice": ("base", "encoder.layer.0.attention.self", (0, 1, 2, 3), (1,)),
    "heads-seeded-anew": ("base", "encoder.layer.0.attention.self", (1, 2, 3), None),
    "partial-block-attended": ("base", "encoder.layer.0.attention.self", (0, 1, 2, 3), (0, 31, 32)),
    "layer-norm-epsilon": ("base", "embeddings.LayerNorm", (), None),
    "positions-shifted": ("base", "embeddings", (), None),
    "pooler-wrong-token": ("base", "pooler", (), None),
    "transform-norm-skipped": ("masked-lm", "cls.predictions.transform", (), None),
    "question-mask-hits-cls": ("qa", "qa_classifier", (), (0,)),
}
BY_SIZE = ("one-element", "bfloat16-weight")  # within a thousand times what is allowed


def parity_faults(*arguments):
    return CliRunner().invoke(main, ["parity", "faults", *map(str, arguments)])


def judged(proof):
    """Nothing unseen, nothing red for no reason, and every fault first seen where it should be."""
    assert not proof.false_alarms
    assert [(found.fault, found.head, found.verdict) for found in proof.failures] == []
    caught = [found for found in proof.detections if found.caught]
    assert [(x.fault, x.head, x.tap, x.expected) for x in caught if not x.at_expected] == []
    assert proof.passed
    return caught


def test_the_catalogue_says_what_everything_is():
    assert len(FAULTS) >= 30
    assert {fault.how for fault in FAULTS.values()} == {"weights", "configuration", "code"}
    for fault in FAULTS.values():
        assert fault.what.endswith("."), fault.name
        assert fault.heads <= set(HEADS)
        injected = (fault.weights, fault.config, fault.inputs, fault.labels, fault.twin, fault.witness)
        assert sum(bool(way) for way in injected) == 1, fault.name
        if fault.twin and not fault.reference:
            assert fault.always, f"{fault.name}: nothing says whether it changes the function"
    with pytest.raises(ValueError, match="there is no fault nose"):
        find_faults(("nose",))


@functools.cache
def bench(case, head, into="torch"):
    made = Bench(make_setup(case, head), into)
    assert not made.clean(made.right()).problem
    return made


def inject(fault, case, head, into="torch"):
    right = bench(case, head, into)
    with fault.in_twin(into):
        return right.run(fault)


@pytest.mark.parametrize("name", LOCATED)
def test_a_fault_is_located_where_it_was_injected(name):
    head, module, attention_heads, blocks = LOCATED[name]
    fault = FAULTS[name]
    found = inject(fault, fault.case, head)
    assert found.verdict == "caught"
    assert found.at_expected, found.tap
    finding = found.findings[0]
    assert (finding.module, finding.attention_heads) == (module, attention_heads)
    assert blocks is None or finding.query_blocks == blocks


@pytest.mark.parametrize("name", ["bfloat16-weight", "exact-gelu", "token-types-ignored", "question-mask-hits-cls"])
def test_flax_is_judged_alike(name):
    """On a short text, which compiles in a moment; block-sparse attention is in the whole matrix."""
    found = inject(FAULTS[name], "short", "qa", "flax")
    assert found.verdict == "caught"
    assert found.at_expected, found.tap


def test_what_changes_nothing_is_green_and_said_so():
    """Attention of a decoder looks at no pattern; a penalty is as good scaled."""
    proof = run_faults(heads=["causal-lm"], names=["one-random-block", "scale-after-mask", "causal-off-by-one"])
    judged(proof)
    assert [found.verdict for found in proof.detections] == ["no change", "no change", "caught"]
    assert "no tap moves" in proof.detections[0].evidence


@pytest.mark.parametrize("head", ["base", "pretraining", "qa"])
def test_what_only_the_call_does_wrong_only_its_rows_show(head):
    """The walk through the modules is right; on a padded batch, as in the whole matrix for every head."""
    for name in ("call-skips-a-block", "call-runs-other-weights"):
        result = bench("padded", head).faulty(FAULTS[name])
        assert {row.error for row in result.failures} == {"called"}, name
        found = inject(FAULTS[name], "padded", head)
        assert found.verdict == "caught"
        assert found.at_expected, found.tap


def test_a_call_of_the_base_model_is_judged_alike(monkeypatch):
    """That of a language model whose scores come in pieces."""
    monkeypatch.setattr("parity.run.walk._SCORES_AT_ONCE", 2 * 97 * 100)
    for name in ("call-skips-a-block", "call-runs-other-weights"):
        result = bench("padded", "masked-lm").faulty(FAULTS[name])
        assert {row.error for row in result.failures} == {"called"}, name
        assert "last_hidden_state" in {row.tap for row in result.failures}


def test_decoding_shows_a_cache_that_is_off_by_one():
    (found,) = judged(run_faults(heads=["causal-lm"], names=["cache-off-by-one"]))
    assert found.tap == "logits"


@pytest.fixture
def lenient(monkeypatch):
    """A thousand times the tolerance."""
    right = Scene.tolerance

    def widened(self, *arguments):
        found = right(self, *arguments)
        return dataclasses.replace(found, bound=1000 * found.bound)

    monkeypatch.setattr(Scene, "tolerance", widened)


@pytest.mark.usefixtures("lenient")
def test_a_lenient_gate_is_found_out(tmp_path):
    result = parity_faults("--head", "base", *(f"--fault={name}" for name in BY_SIZE), "--json", tmp_path / "x.json")
    assert result.exit_code == 1, result.output
    assert "missed: one-element, base: reference: layer.0.intermediate moves by" in result.output
    found = json.loads((tmp_path / "x.json").read_text())
    assert not found["passed"]
    assert [(row["changes"], row["caught"], row["verdict"]) for row in found["faults"]] == [(True, False, "missed")] * 2


def test_a_strict_gate_is_found_out(monkeypatch):
    """A comparison that is red without a fault proves nothing, and nothing is injected."""
    right = Scene.tolerance
    monkeypatch.setattr(
        Scene, "tolerance", lambda self, *a: dataclasses.replace(right(self, *a), bound=right(self, *a).bound / 1000)
    )
    monkeypatch.setattr("parity.measure.rounding.FACTOR", 0.01)  # which would save it
    result = parity_faults("--head", "base", "--fault", "one-element")
    assert result.exit_code == 1
    assert "red without a fault: padded, base: " in result.output
    assert "0 times injected" in result.output


def test_red_without_a_change_is_a_false_alarm():
    """A fault that the reference knows nothing of: it cannot be told from a gate that cries wolf."""
    fault = dataclasses.replace(FAULTS["scale-missing"], reference=None)
    found = inject(fault, "padded", "base")
    assert found.verdict == "false alarm"
    proof = faults.Proof("torch", [found], [faults.Clean("padded", "base", "torch", 0, 1, 0.1)])
    assert not proof.passed
    assert not faults.Proof("torch").passed  # nothing was compared


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_code_is_put_back(framework):
    places = {path for fault in FAULTS.values() for path, _ in fault.twin} | {"bigbird.encoder.layer_pattern"}
    for path in places:
        room, module, *names = path.split(".")
        owner = importlib.import_module(f"models_{framework}.{room}.{module}")
        called = {"torch": "forward", "flax": "__call__"}[framework]
        names = [{"call": called}.get(name, name) for name in names]
        if framework == "flax":
            others = {"BigBirdModel": "FlaxBigBirdModule", "attend": "attend_in_part"}  # attend and all that is alike
            names = [others.get(name, name) for name in names]
        for name in names[:-1]:
            owner = getattr(owner, name)
        before = getattr(owner, names[-1])
        with in_twin(path, lambda call: lambda *a, **k: call(*a, **k))(framework):
            assert getattr(owner, names[-1]) is not before
        assert getattr(owner, names[-1]) is before, path


def test_on_a_converted_checkpoint(converted, tmp_path):
    out, names = converted("mini-pretrain"), ("pooler-transposed", "rescale-missing", "one-random-block")
    files = [f"--{kind}={tmp_path / kind}" for kind in ("json", "markdown", "html")]
    result = parity_faults(out, "--head", "pretraining", *(f"--fault={name}" for name in names), *files)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "json").read_text())["faults"]
    assert set(rows[0]) >= {"fault", "into", "head", "changes", "caught", "tap", "factor", "located", "expected"}
    assert [(row["fault"], row["verdict"]) for row in rows] == [
        ("pooler-transposed", "caught"),
        ("rescale-missing", "no change"),  # this checkpoint does not rescale
        ("one-random-block", "caught"),
    ]
    assert "pooler-transposed" in (tmp_path / "markdown").read_text()
    assert "pooler-transposed" in (tmp_path / "html").read_text()


def test_the_catalogue_is_listed_and_unknown_faults_are_refused():
    listed = parity_faults("--list")
    assert "untied" in listed.output
    assert all(f"{name}: " in listed.output for name in FAULTS)
    unknown = parity_faults("--fault", "nose")
    assert unknown.exit_code == 2
    assert "there is no fault nose: expected some of transposed-kernel" in unknown.output


def test_no_false_alarm_over_a_few_seeds():
    result = parity_faults("--clean-seeds", 2, "--head", "qa")
    assert result.exit_code == 0, result.output
    assert "torch: 0 false alarms in 2 runs" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_every_fault_is_seen_for_every_head(framework, tmp_path):
    """The whole matrix, as the command writes it."""
    result = parity_faults("--into", framework, "--json", tmp_path / "matrix.json")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "matrix.json").read_text())["faults"]
    touched = {(fault.name, head) for fault in FAULTS.values() for head in fault.heads}
    assert {(row["fault"], row["head"]) for row in rows} == touched
    caught = [row for row in rows if row["caught"]]
    assert [row for row in caught if not fnmatch(row["tap"], row["expected"])] == []
    assert {row["fault"] for row in caught} == set(FAULTS) - {"scale-after-mask"}  # it changes nothing, for any head


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_no_false_alarm_over_fifty_seeds(framework):
    runs = list(clean_runs(range(50), framework))
    assert len(runs) == 50 * len(HEADS)
    assert [run for run in runs if run.problem] == []
    assert 0 < max(run.worst for run in runs) <= 1
