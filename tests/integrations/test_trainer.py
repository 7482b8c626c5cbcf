"""Trainer, PEFT and accelerate with the models: training of every guide's task, checkpoints, and golden numbers."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import GOLDEN, ROOT

TASKS = (
    *("BigBirdForSequenceClassification", "BigBirdForTokenClassification", "BigBirdForQuestionAnswering"),
    *("BigBirdForMultipleChoice", "BigBirdForMaskedLM", "BigBirdForCausalLM"),
    *("BigBirdPegasusForConditionalGeneration", "gradient_checkpointing", "core", "core_checkpointing"),
)
HAS_PEFT = importlib.util.find_spec("peft") is not None
pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.fixture(scope="module")
def results(tmp_path_factory, converted):
    """What tests/integrations/trainer_client.py found, in a process without TensorFlow, which Trainer does not like."""
    for name in ("transformers", "accelerate"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "tests.integrations.trainer_client", str(tmp_path_factory.mktemp("trainer"))]
    command += [str(converted("mini-pretrain") / "torch"), str(GOLDEN["mini-pretrain"].cases[0])]
    done = subprocess.run(
        command + (["peft"] if HAS_PEFT else []),
        env=os.environ | {"USE_TF": "0", "USE_FLAX": "0", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("task", TASKS)
def test_training_learns_predicts_and_its_checkpoint_is_the_products(results, task):
    found = results[task]
    before, after = found["losses"]
    assert after < before - 0.01
    assert found["checkpoint"] < 1e-5


def test_predict_gives_the_original_numbers(results):
    assert results["golden"] < 1e-5


def test_accelerate_places_the_models(results):
    assert results["accelerate"] < 1e-6


@pytest.mark.skipif(not HAS_PEFT, reason="peft is not installed")
def test_adapters_learn_and_merge(results):
    assert results["peft"]["learned"] > 1e-3
    assert results["peft"]["merged"] < 1e-5
