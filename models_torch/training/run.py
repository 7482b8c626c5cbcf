"""A run that goes on: a model with its optimizer and schedule, one update, and saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bigbird_port.training.resuming import Resumed, read_training, style_of
from bigbird_port.training.saving import whole_save, write_training
from models_torch.training.batches import sorted_batch
from models_torch.training.devices import average, by_one_process, several, split, whole
from models_torch.training.losses import batch_loss
from models_torch.training.state import make_optimizer, make_schedule, slot_arrays


class TrainingRun:
    """A run. model: in training mode; optimizer, schedule: torch's, of use in a loop of one's own or a Trainer.

    loss_style, replicas: of train_step; resume says what they are.
    """

    def __init__(self, resumed: Resumed, model: Any, optimizer: Optimizer, schedule: LambdaLR) -> None:
        self.resumed, self.model, self.optimizer, self.schedule = resumed, model, optimizer, schedule
        self.loss_style, self.replicas = "transformers", 1

    @property
    def step(self) -> int:
        """The number of updates so far, those of the original included."""
        return self.schedule.last_epoch

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, with its graph; train_step says what a batch is."""
        next_sentence = self.resumed.state.training.use_nsp
        given = sorted_batch(batch, self.model.device, next_sentence)
        return batch_loss(self.model, given, self.loss_style, self.replicas)

    def train_step(self, batch: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Tensor:
        """Make one update and return its loss, a number.

        batch: the model's keywords, or the original's features (input_ids, segment_ids, masked_lm_positions,
        masked_lm_ids, masked_lm_weights, next_sentence_labels, or labels); tensors or NumPy arrays. Of several batches
        the mean of the gradients is taken, and in a process group the mean over its processes, as the original does
        with its replicas.
        """
        parts = [batch] if isinstance(batch, Mapping) else list(batch)
        self._check_parameters()
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.model.device)
        for part in parts:
            loss = self.loss(part) / len(parts)
            loss.backward()
            total += loss.detach()
        if several():
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            averaged = any(isinstance(x, DTensor) for x in gradients)  # by FSDP2
            average([total] if averaged else [*gradients, total])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return total

    def _check_parameters(self) -> None:
        """Raise ValueError where the model's parameters are no longer those that the optimizer updates."""
        own = {id(parameter) for parameter in self.model.parameters()}
        if any(id(parameter) not in own for group in self.optimizer.param_groups for parameter in group["params"]):
            raise ValueError(
                "the model's parameters were replaced after resume, as fully_shard does, and the optimizer has the old "
                "ones: have resume split the model by mesh="
            )

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write model and training state into ``folder``, whole or not at all; resume and convert read it.

        In a process group every process calls, and the first writes. overwrite: replace an earlier save. Raises
        ValueError where the folder is anything else.
        """
        slots, powers = slot_arrays(self.resumed, self.model, self.optimizer)
        weights = {name: whole(x) for name, x in self.model.state_dict().items()}
        still = self.resumed.not_trained
        state = replace(self.resumed.state, global_step=self.step, powers=powers, not_trained=still)

        def write() -> None:
            with whole_save(Path(folder), overwrite) as staged:
                self.model.save_pretrained(staged, max_shard_size=1 << 50, state_dict=weights)
                write_training(staged, state, slots)

        by_one_process(write)


def resume(
    out: str | Path,
    head: str | None = None,
    *,
    loss_style: str | None = None,
    replicas: int | None = None,
    foreach: bool | None = None,
    device: Any = None,
    mesh: Any = None,
    **overrides: Any,
) -> TrainingRun:
    """Return the run whose state lies in ``out``, which convert --optimizer or a run wrote: it goes on at its step.

    head: whose loss to train, such as "pretraining"; None: the folder's. loss_style: of train_step: "transformers",
    the mean over masked words, or "original", which adds 1e-5 to their number and computes scores at masked positions
    alone; None: the configuration's (BigBird-Pegasus), or the first. replicas: with "original", parts of a batch of
    which each has a mean of its own; None: 1. foreach: the optimizer's. device: where the model is. mesh: of
    models_torch.sharding.make_mesh: model and slots are split over it. overrides: fields of the configuration, such as
    hidden_dropout_prob. Raises ValueError where there is no state, or it is another head's.
    """
    resumed = read_training(out, "torch", head)
    style, parts = style_of(resumed.config, loss_style, replicas, 1)  # each process has a batch of its own
    if hasattr(resumed.config, "loss_style"):
        overrides["loss_style"] = style
    cls = resumed.config.family.model_class(resumed.head, "torch")
    model = cls.from_pretrained(resumed.folder, device_map=device, **overrides).train()
    if mesh is not None:
        split(model, mesh)
    optimizer = make_optimizer(resumed, model, foreach)
    run = TrainingRun(resumed, model, optimizer, make_schedule(resumed, optimizer))
    run.loss_style, run.replicas = style, parts
    return run
