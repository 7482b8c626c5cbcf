"""Both frameworks against what the original code computed."""

import os
import subprocess
import sys

import numpy as np
import pytest

from parity.given.golden import derived_taps, golden_taps, log_softmax, read_golden
from parity.witnesses.whole import load_whole
from tests.conftest import CASES, GOLDEN, ROOT, require

FRAMEWORKS = ("torch", "flax")
LIMIT = 1e-5  # measured: 2e-6


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("name", "path"), CASES)
def test_every_golden_tensor_is_met(converted, name, path, framework):
    require(GOLDEN[name])
    case = read_golden(path)
    overrides = {"max_encoder_length": case.max_encoder_length}
    run = load_whole(framework, converted(name), case.head, case.inputs, overrides, 0)
    taps = run.taps | derived_taps(run.taps, case, run.config)
    golden, left_over = golden_taps(case, list(taps))
    assert all(name.startswith("grad.") for name in left_over)
    real = case.inputs["input_ids"] != 0
    assert not real.all() or len(real) == 1  # the cases are padded
    for tap, expected in golden.items():
        value = taps[tap]
        if tap.endswith((".query", ".key", ".value")):
            value, expected = value.swapaxes(1, 2), expected.swapaxes(1, 2)
        if value.shape[:2] == real.shape:
            value, expected = value[real], expected[real]
        assert value.shape == expected.shape, tap
        np.testing.assert_allclose(value, expected, rtol=0, atol=LIMIT, err_msg=tap)
    layers = {f"layer.{i}.{part}" for i in range(run.config.num_hidden_layers) for part in ("context", "output")}
    assert golden.keys() >= layers | {"embeddings_prenorm", "embeddings", "sequence_output", "pooler_output"}
    scores = {"pretraining": {"mlm_log_probs", "mlm_loss", "nsp_log_probs", "nsp_loss"}}
    assert golden.keys() >= scores.get(case.head, {"cls_log_probs", "cls_loss"})
    if case.head == "pretraining":
        best = run.taps["prediction_logits"].argmax(-1)
        assert (best == golden["mlm_log_probs"].argmax(-1))[real].all()


def test_log_softmax_does_not_overflow():
    np.testing.assert_allclose(np.exp(log_softmax(np.array([[1e4, 1e4]]))), [[0.5, 0.5]])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_wrong_random_blocks_are_far_from_the_original(converted, framework):
    """The negative control: transformers' all-zero blocks on the same weights miss the golden outputs by far."""
    path = GOLDEN["mini-pretrain"].cases[0]
    case = read_golden(path)
    overrides = {"max_encoder_length": case.max_encoder_length, "random_blocks": "transformers"}
    run = load_whole(framework, converted("mini-pretrain"), case.head, case.inputs, overrides, 0)
    real = case.inputs["input_ids"] != 0
    error = np.abs(log_softmax(run.taps["prediction_logits"]) - case.tensors["mlm_log_probs"])[real].max()
    assert error > 0.1


AS_USERS = """
import sys
import jax, numpy as np
from models_flax import FlaxBigBirdForPreTraining
from parity.given.golden import log_softmax, read_golden
from pathlib import Path
case = read_golden(Path(sys.argv[2]))
model = FlaxBigBirdForPreTraining.from_pretrained(sys.argv[1], max_encoder_length=case.max_encoder_length)
call = jax.jit(lambda params, inputs: model(**inputs, params=params).prediction_logits)
for logits in (call(model.params, case.inputs), model(**case.inputs).prediction_logits):
    real = case.inputs["input_ids"] != 0
    print(np.abs(log_softmax(np.asarray(logits)) - case.tensors["mlm_log_probs"])[real].max())
"""


def test_what_xla_optimises_meets_the_original(converted):
    """make test has XLA optimise less (Makefile). A process of its own compiles as users do."""
    environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    case = GOLDEN["mini-pretrain"].cases[0]
    arguments = [sys.executable, "-c", AS_USERS, str(converted("mini-pretrain")), str(case)]
    run = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    errors = [float(line) for line in run.stdout.split()]
    assert len(errors) == 2, run.stderr
    assert max(errors) < LIMIT
