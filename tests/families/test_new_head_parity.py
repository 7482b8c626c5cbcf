"""The rest of CONTRIBUTING.md's recipe for a head: parity, its gradients, and faults take nothing more."""

import pytest

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.families.registry import registered
from parity.faults.matrix import run_faults
from parity.run.conditions import Options
from parity.run.run import run_parity
from tests.conftest import DEMO
from tests.families.mean_pooled import FAMILY, NAME

FAULTS = {
    "one-element": "layer.0.intermediate",  # a fault of a weight
    "scale-missing": "layer.0.context",  # a fault of code
    "labels-off-by-one": "loss",
}


@pytest.fixture(scope="module", autouse=True)
def family():
    with registered(FAMILY) as found:
        yield found


FRAMEWORKS = ["torch", pytest.param("flax", marks=pytest.mark.slow)]  # Flax compiles for half a minute


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parity_holds_for_scores_loss_calls_and_gradients(framework, tmp_path):
    convert(DEMO, tmp_path / "out", Settings(head=NAME, seed=3))
    options = Options(length=12, gradients=True, witnesses=(framework, "reference"))
    result = run_parity(tmp_path / "out", [NAME], options)
    assert result.passed, [row for row in result.rows if not row.passed][:3]
    assert {(row.error, row.tap) for row in result.rows} >= {
        ("accumulated", "logits"),
        ("local", "logits"),
        ("called", "logits"),
        ("loss", "loss"),
        ("gradient", "grad.regressor.kernel"),
        ("gradient", "grad.layer.0.query"),
    }


@pytest.mark.parametrize("into", FRAMEWORKS)
def test_faults_are_caught(into):
    proof = run_faults(into=into, heads=[NAME], names=list(FAULTS))
    assert proof.passed
    assert {found.fault: (found.verdict, found.tap) for found in proof.detections} == {
        name: ("caught", tap) for name, tap in FAULTS.items()
    }
