"""transformers' Trainer with a run's optimizer and schedule takes the original's step; its own list of decays is wrong.

test_trainer.py runs these tests, in a process of their own.
"""

import pytest
import torch

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.training.carried import Asked
from models_torch.training import resume
from models_torch.training.batches import sorted_batch, token_labels
from tests.training.steps import KEY_BIAS, MINI, steps_of, worst

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
TRANSFORM = {f"cls.predictions.transform.LayerNorm.{name}" for name in ("weight", "bias")}


@pytest.fixture
def run(tmp_path):
    convert(steps_of(MINI).checkpoint, tmp_path / "out", Settings(to=("torch",), training=Asked()))
    return resume(tmp_path / "out", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def texts():
    """The texts of the original's first batch, one dictionary each: one epoch is one update, in whatever order."""
    batch = sorted_batch(steps_of(MINI).batch(1), torch.device("cpu"), True)
    columns = {**batch.inputs, "labels": token_labels(batch.masked, batch.inputs["input_ids"].shape[1]).long(),
               "next_sentence_label": batch.labels["next_sentence_label"].long()}  # fmt: skip
    return [{name: x[i].long() for name, x in columns.items()} for i in range(3)]


def trainer_of(run, folder, **options):
    from transformers import Trainer, TrainingArguments

    given = {"per_device_train_batch_size": 3, "num_train_epochs": 1, "report_to": [], "save_strategy": "no"}
    given |= {"use_cpu": True, "disable_tqdm": True, "max_grad_norm": 0.0} | options
    arguments = TrainingArguments(output_dir=str(folder), **given)
    return Trainer(run.model, arguments, train_dataset=texts(), optimizers=(run.optimizer, run.schedule))


def off(run):
    """How far the vectors, which lie here as they do there, are from the original's behind its first step."""
    expected = {key: x for key, x in steps_of(MINI).after(1).items()
                if "/" not in key and x.ndim == 1 and not key.endswith(KEY_BIAS)}  # fmt: skip
    found = {run.resumed.rows[key].name: x.detach().numpy() for key, x in run.model.named_parameters()}
    return worst(found, expected)[0]


def test_the_trainer_takes_the_originals_step(run, tmp_path):
    before = off(run)
    trainer_of(run, tmp_path / "trainer").train()
    assert run.step == 11
    assert off(run) < 1e-5 < before / 10
    run.save(tmp_path / "saved")
    assert resume(tmp_path / "saved").step == 11


def test_its_clipping_has_to_be_off(run, tmp_path):
    trainer_of(run, tmp_path / "trainer", max_grad_norm=0.01).train()
    assert off(run) > 1e-4


def test_its_own_list_of_what_decays_leaves_out_the_transforms_layer_norm(run, tmp_path):
    """docs/training.md has what that costs; that list and the fault that the table measures are the same."""
    decays = set(trainer_of(run, tmp_path / "trainer").get_decay_parameter_names(run.model))
    ours = {name for name, _ in run.model.named_parameters() if name in run.resumed.decays}
    assert ours - decays == TRANSFORM
    assert not decays - ours
