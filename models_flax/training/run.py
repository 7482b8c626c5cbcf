"""A run that goes on: a model with its optimizer and schedule, one update, and saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import optax
from jax import Array
from jax import numpy as jnp

from bigbird_port.training.resuming import Resumed, check_loss_style, read_training
from bigbird_port.training.saving import whole_save, write_training
from models_flax.training.batches import sorted_batch
from models_flax.training.losses import batch_loss
from models_flax.training.state import begun, make_optimizer, make_schedule, own_state, slot_arrays

Params = dict[str, Any]
Parts = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class TrainingRun:
    """A run. model: with the parameters it began with; params, opt_state: those of now; optimizer: optax's.

    schedule: the rate, of the updates so far. loss_style, replicas, seed: resume says what they are.
    """

    def __init__(self, resumed: Resumed, model: Any, optimizer: optax.GradientTransformation, schedule: Any) -> None:
        self.resumed, self.model, self.optimizer, self.schedule = resumed, model, optimizer, schedule
        self.loss_style, self.replicas, self.seed = "transformers", 1, 0
        self.params: Params = model.params
        self.opt_state: Any = begun(resumed, optimizer, model.params)
        self._jitted = jax.jit(self.update)

    @property
    def step(self) -> int:
        """The number of updates so far, those of the original included."""
        return int(own_state(self.opt_state).step)

    @property
    def state(self) -> dict[str, Any]:
        """Parameters, optimizer's state and step as a pytree, for Orbax; set it to what was restored."""
        return {"params": self.params, "opt_state": self.opt_state, "step": own_state(self.opt_state).step}

    @state.setter
    def state(self, tree: Mapping[str, Any]) -> None:
        self.params, self.opt_state = tree["params"], tree["opt_state"]

    def loss(self, params: Params, batch: Mapping[str, Any], step: Any = 0) -> Array:
        """Return the loss of a batch; train_step says what a batch is. step: that of what is dropped."""
        given = sorted_batch(batch, self.resumed.state.training.use_nsp)
        dropout = jax.random.fold_in(jax.random.key(self.seed), step)
        return batch_loss(self.model, params, given, self.loss_style, self.replicas, dropout)

    def update(self, params: Params, opt_state: Any, batch: Parts) -> tuple[Params, Any, Array]:
        """Return parameters and state behind one update, and its loss: a pure function, for jax.jit."""
        loss, gradients = self.gradients(params, opt_state, batch)
        changes, opt_state = self.optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, changes), opt_state, loss

    def gradients(self, params: Params, opt_state: Any, batch: Parts) -> tuple[Array, Params]:
        """Return the loss of a batch, or the mean of several, and its gradients."""
        parts = [batch] if isinstance(batch, Mapping) else list(batch)
        step = own_state(opt_state).step

        def mean(params: Params) -> Array:
            losses = [self.loss(params, part, step * len(parts) + i) for i, part in enumerate(parts)]
            return jnp.stack(losses).mean()

        return jax.value_and_grad(mean)(params)

    def train_step(self, batch: Parts) -> Array:
        """Make one update, compiled, and return its loss, a number.

        batch: the model's keywords, or the original's features (input_ids, segment_ids, masked_lm_positions,
        masked_lm_ids, masked_lm_weights, next_sentence_labels, or labels). Of several batches the mean of the gradients
        is taken, as the original does with its replicas.
        """
        self.params, self.opt_state, loss = self._jitted(self.params, self.opt_state, batch)
        return loss

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write model and training state into ``folder``, whole or not at all; resume and convert read it.

        overwrite: replace an earlier save. Raises ValueError where the folder is anything else.
        """
        slots, powers = slot_arrays(self.resumed, self.opt_state)
        still = self.resumed.not_trained
        state = replace(self.resumed.state, global_step=self.step, powers=powers, not_trained=still)
        with whole_save(Path(folder), overwrite) as staged:
            self.model.save_pretrained(staged, self.params)
            write_training(staged, state, slots)


def resume(
    out: str | Path,
    head: str | None = None,
    *,
    loss_style: str = "transformers",
    replicas: int = 1,
    seed: int = 0,
    **overrides: Any,
) -> TrainingRun:
    """Return the run whose state lies in ``out``, which convert --optimizer or a run wrote: it goes on at its step.

    head: whose loss to train, such as "pretraining"; None: the folder's. loss_style: "transformers", the mean over
    masked words, or "original", which adds 1e-5 to their number and computes scores at masked positions alone.
    replicas: with "original", parts of a batch of which each has a mean of its own. seed: of dropout. overrides: fields
    of the configuration, such as hidden_dropout_prob. Raises ValueError where there is no state, or it is another
    head's.
    """
    check_loss_style(loss_style, replicas)
    resumed = read_training(out, "flax", head)
    cls = resumed.config.family.model_class(resumed.head, "flax")
    model = cls.from_pretrained(resumed.folder, **overrides)
    run = TrainingRun(resumed, model, make_optimizer(resumed), make_schedule(resumed))
    run.loss_style, run.replicas, run.seed = loss_style, replicas, seed
    return run
