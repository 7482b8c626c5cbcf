"""A run that goes on: a model with its optimizer and schedule, one update, and saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import optax
from jax import Array
from jax import numpy as jnp

from bigbird_port.training.resuming import Resumed, read_training, style_of
from bigbird_port.training.saving import whole_save, write_training
from models_flax.training.batches import sorted_batch
from models_flax.training.devices import split, split_batch, whole
from models_flax.training.losses import batch_loss
from models_flax.training.state import begun, make_optimizer, make_schedule, own_state, slot_arrays

Params = dict[str, Any]
Parts = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class TrainingRun:
    """A run. model: with the parameters it began with; params, opt_state: those of now; optimizer: optax's.

    schedule: the rate, of the updates so far. loss_style, replicas, seed, mesh: resume says what they are.
    """

    def __init__(
        self, resumed: Resumed, model: Any, optimizer: optax.GradientTransformation, schedule: Any, mesh: Any = None
    ) -> None:
        self.resumed, self.model, self.optimizer, self.schedule = resumed, model, optimizer, schedule
        self.loss_style, self.replicas, self.seed, self.mesh = "transformers", 1, 0, mesh
        self.params: Params = model.params if mesh is None else split(model, mesh)
        self.opt_state: Any = begun(resumed, optimizer, self.params, mesh)
        places = None if mesh is None else (*map(_places, (self.params, self.opt_state)), None)
        self._jitted = jax.jit(self.update, out_shardings=places)

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
        with nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            given = split_batch(batch, self.mesh)
            self.params, self.opt_state, loss = self._jitted(self.params, self.opt_state, given)
        return loss

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write model and training state into ``folder``, whole or not at all; resume and convert read it.

        overwrite: replace an earlier save. Raises ValueError where the folder is anything else.
        """
        slots, powers = slot_arrays(self.resumed, self.opt_state)
        still = self.resumed.not_trained
        state = replace(self.resumed.state, global_step=self.step, powers=powers, not_trained=still)
        params = jax.tree.map(whole, self.params)
        with whole_save(Path(folder), overwrite) as staged:
            self.model.save_pretrained(staged, params)
            write_training(staged, state, slots)


def _places(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding, tree)


def resume(
    out: str | Path,
    head: str | None = None,
    *,
    loss_style: str | None = None,
    replicas: int | None = None,
    seed: int = 0,
    mesh: Any = None,
    **overrides: Any,
) -> TrainingRun:
    """Return the run whose state lies in ``out``, which convert --optimizer or a run wrote: it goes on at its step.

    head: whose loss to train, such as "pretraining"; None: the folder's. loss_style: "transformers", the mean over
    masked words, or "original", which adds 1e-5 to their number and computes scores at masked positions alone; None:
    the configuration's (BigBird-Pegasus), or the first. replicas: with "original", parts of a batch of which each has a
    mean of its own; None: as many as the mesh splits texts among. seed: of dropout. mesh: of
    models_flax.sharding.make_mesh: parameters and slots are split over it, and batches in train_step. overrides: fields
    of the configuration, such as hidden_dropout_prob. Raises ValueError where there is no state, or it is another
    head's.
    """
    resumed = read_training(out, "flax", head)
    style, parts = style_of(resumed.config, loss_style, replicas, 1 if mesh is None else mesh.shape["data"])
    if hasattr(resumed.config, "loss_style"):
        overrides["loss_style"] = style
    cls = resumed.config.family.model_class(resumed.head, "flax")
    model = cls.from_pretrained(resumed.folder, **overrides)
    run = TrainingRun(resumed, model, make_optimizer(resumed), make_schedule(resumed), mesh)
    run.loss_style, run.replicas, run.seed = style, parts, seed
    return run
