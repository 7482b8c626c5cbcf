"""Several processes give the mean of their gradients, as the original's replicas do."""

import numpy as np
import pytest
import torch

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.training.carried import Asked
from models_torch.training import resume
from tests.models.gloo import run_in_processes
from tests.training.steps import MINI, steps_of


def one_of(rank, out):
    """Take a step on this process's batch; return loss and weights."""
    run = resume(out, loss_style="original")
    loss = run.train_step(steps_of(MINI).batch(rank + 1))
    return {"loss": loss} | {name: x.detach() for name, x in run.model.named_parameters()}


@pytest.mark.slow
def test_two_processes_equal_the_mean_of_both_batches(tmp_path):
    convert(steps_of(MINI).checkpoint, tmp_path / "out", Settings(to=("torch",), training=Asked()))
    found = run_in_processes(one_of, tmp_path, 2, str(tmp_path / "out"))
    run = resume(tmp_path / "out", loss_style="original")
    expected = {"loss": run.train_step([steps_of(MINI).batch(n) for n in (1, 2)])}
    expected |= {name: x.detach() for name, x in run.model.named_parameters()}
    for name, x in expected.items():
        assert torch.equal(found[0][name], found[1][name])
        np.testing.assert_allclose(found[0][name], x, atol=2e-6)
    alone = resume(tmp_path / "out", loss_style="original")
    assert abs(float(alone.train_step(steps_of(MINI).batch(1))) - float(expected["loss"])) > 1e-3
