"""Runs that train summaries go on in both frameworks: Adafactor, the schedule of the inverse root, the model's loss."""

import numpy as np
import pytest

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.training.carried import Asked
from models_flax.training import resume as flax_resume
from models_torch.training import resume as torch_resume
from tests.conftest import GOLDEN, require

STILL = "embeddings.position_embeddings.embedding"
DRY = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("summaries") / "out"
    convert(require(GOLDEN["mini-pegasus"]).checkpoint, folder, Settings(training=Asked()))
    return folder


def batch_of(run):
    rng = np.random.default_rng(0)
    sizes = {"input_ids": 48, "labels": 8}
    batch = {name: rng.integers(3, run.resumed.config.vocab_size, (2, size)) for name, size in sizes.items()}
    batch["labels"][1, 5:] = 0
    return batch


def named(run):
    if hasattr(run, "params"):
        from flax.traverse_util import flatten_dict

        arrays = {name: np.asarray(x) for name, x in flatten_dict(run.params, sep="/").items()}
    else:
        arrays = {name: x.detach().numpy().copy() for name, x in run.model.named_parameters()}
    return {run.resumed.rows[name].name: x for name, x in arrays.items() if name in run.resumed.rows}


def test_the_rate_is_the_inverse_root(out):
    run = torch_resume(out, **DRY)
    own = run.resumed.state.training
    width = run.resumed.config.d_model
    expected = own.learning_rate * width**-0.5 * run.step**-0.5
    assert run.step > own.num_warmup_steps
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)


def test_positions_are_held_still_and_all_else_moves(out):
    run = torch_resume(out, **DRY)
    before = named(run)
    for _ in range(2):
        run.train_step(batch_of(run))
    after = named(run)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert set(before) - moved == {STILL} == set(run.resumed.not_trained)


def test_the_loss_is_the_configurations_or_the_one_that_is_asked_for(out):
    losses = {}
    for style in (None, "original", "transformers"):
        run = torch_resume(out, loss_style=style, **DRY)
        losses[style] = float(run.loss(batch_of(run)).detach())
    assert losses[None] == losses["original"]
    assert abs(losses["original"] - losses["transformers"]) > 1e-2


def test_replicas_have_denominators_of_their_own(out):
    run = torch_resume(out, replicas=2, **DRY)
    batch = batch_of(run)
    parts = [{name: x[i : i + 1] for name, x in batch.items()} for i in (0, 1)]
    alone = torch_resume(out, **DRY)
    losses = [float(alone.loss(part).detach()) for part in parts]
    assert float(run.loss(batch).detach()) == pytest.approx(sum(losses) / 2, rel=1e-6)
    assert float(alone.loss(batch).detach()) != pytest.approx(sum(losses) / 2, rel=1e-4)


@pytest.mark.slow  # compiles
def test_flax_takes_the_steps_of_torch(out):
    runs = [torch_resume(out, **DRY), flax_resume(out, **DRY)]
    losses = [[float(run.train_step(batch_of(run))) for _ in range(3)] for run in runs]
    np.testing.assert_allclose(*losses, atol=1e-5)
    one, two = map(named, runs)
    vectors = [name for name, x in one.items() if x.ndim == 1 and "key.bias" not in name]
    assert vectors
    for name in vectors:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, err_msg=name)


def test_a_mesh_of_summaries_is_refused(out):
    with pytest.raises(ValueError, match="no plan of how a BigBirdPegasusForConditionalGeneration is split"):
        torch_resume(out, mesh=object())
