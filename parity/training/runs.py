"""Who takes the steps: the reference and both frameworks, each asked the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bigbird_port.models.folder import WEIGHT_FILES
from bigbird_port.schema.layout import change_layout
from bigbird_port.schema.slots import Slot, slot_axes
from bigbird_port.schema.table import Framework, dims
from bigbird_port.schema.weights import framework_axes
from bigbird_port.training.rates import linear_rate, rsqrt_rate
from bigbird_port.training.resuming import Resumed, read_training
from parity.given.inputs import Inputs
from parity.reference.backward import backward
from parity.reference.model import Reference
from parity.training.batches import for_reference
from parity.training.rules import UPDATES, Arrays, Moment


@dataclass(frozen=True)
class Stepped:
    """What one update said: the loss and the gradients' norm at the weights before it, and the rate."""

    loss: float
    rate: float
    norm: float


class Steps(Protocol):
    """Who takes steps."""

    def step(self, batch: Inputs) -> Stepped:
        """Make one update."""
        ...

    def state(self) -> Arrays:
        """Return weights that train, by canonical name, and slots, by CANONICAL/kind, in canonical layout."""
        ...


class ReferenceSteps:
    """The float64 model with its gradients by hand, and the rules in float64."""

    def __init__(self, out: Path, head: str | None) -> None:
        framework = kept_as(out)
        self.resumed = read_training(out, framework, head)
        model = Reference.load(self.resumed.folder, self.resumed.head, {}, 0)
        self.config, self.head = model.config, model.head
        self.weights: Arrays = {name: np.asarray(model.weights[name], np.float64) for name in model.weights}
        slots = canonical_slots(self.resumed, framework)
        self.slots = {self.resumed.rows[place].name: own for place, own in slots.items()}
        self.count, self.powers = self.resumed.state.global_step, tuple(self.resumed.state.powers.values())
        self.decays = {row.name for row in self.resumed.rows.values() if row.decays}

    def step(self, batch: Inputs) -> Stepped:
        """Make one update."""
        model = Reference.of(self.config, self.head, self.weights)
        training = self.resumed.state.training
        inputs, labels = for_reference(batch, training.use_nsp)
        found = backward(model, inputs, labels)
        rate = rate_of(self.resumed, self.count)
        squares = 0.0
        for name, own in self.slots.items():
            gradient = found.weights[name]
            squares += float((gradient**2).sum())
            at = Moment(training, rate, self.count, name in self.decays, self.powers)
            self.weights[name], self.slots[name] = UPDATES[training.optimizer](self.weights[name], gradient, own, at)
        self.count += 1
        betas = (training.beta1, training.beta2)[: len(self.powers)]
        self.powers = tuple(power * float(np.float32(beta)) for power, beta in zip(self.powers, betas, strict=True))
        return Stepped(found.loss, rate, squares**0.5)

    def state(self) -> Arrays:
        """Return weights and slots."""
        weights = {name: self.weights[name] for name in self.slots}
        return weights | {f"{name}/{kind}": x for name, own in self.slots.items() for kind, x in own.items()}


class TorchSteps:
    """models_torch's run."""

    def __init__(self, out: Path, head: str | None) -> None:
        from models_torch.training import resume

        self.run = resume(out, head, loss_style="original", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.norm = 0.0
        self.run.optimizer.register_step_pre_hook(self._measure)

    def _measure(self, optimizer: Any, *arguments: Any) -> None:
        gradients = [p.grad for p in self.run.model.parameters() if p.grad is not None]
        self.norm = float(sum((x.double() ** 2).sum() for x in gradients)) ** 0.5

    def step(self, batch: Inputs) -> Stepped:
        """Make one update."""
        rate = float(self.run.optimizer.param_groups[0]["lr"])
        loss = float(self.run.train_step(batch))
        return Stepped(loss, rate, self.norm)

    def state(self) -> Arrays:
        """Return weights and slots."""
        from models_torch.training.state import slot_arrays

        resumed = self.run.resumed
        slots, _ = slot_arrays(resumed, self.run.model, self.run.optimizer)
        weights = {name: x.detach().numpy() for name, x in self.run.model.named_parameters() if name in resumed.slots}
        return canonical_state(resumed, "torch", weights, slots)


class FlaxSteps:
    """models_flax's run."""

    def __init__(self, out: Path, head: str | None) -> None:
        import jax

        from models_flax.training import resume

        self.run = resume(out, head, loss_style="original", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self._updated = jax.jit(self._update)

    def _update(self, params: Any, opt_state: Any, batch: Any) -> Any:
        import optax

        loss, gradients = self.run.gradients(params, opt_state, batch)
        changes, opt_state = self.run.optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, changes), opt_state, loss, gradients

    def step(self, batch: Inputs) -> Stepped:
        """Make one update."""
        from flax.traverse_util import flatten_dict

        run = self.run
        rate = float(run.schedule(run.step))
        run.params, run.opt_state, loss, gradients = self._updated(run.params, run.opt_state, batch)
        trained = (np.float64(x) for name, x in flatten_dict(gradients, sep="/").items() if name in run.resumed.slots)
        return Stepped(float(loss), rate, float(sum((x**2).sum() for x in trained)) ** 0.5)

    def state(self) -> Arrays:
        """Return weights and slots."""
        from flax.traverse_util import flatten_dict

        from models_flax.training.state import slot_arrays

        slots, _ = slot_arrays(self.run.resumed, self.run.opt_state)
        flat = flatten_dict(self.run.params, sep="/")
        weights = {name: np.asarray(x) for name, x in flat.items() if name in self.run.resumed.slots}
        return canonical_state(self.run.resumed, "flax", weights, slots)


WHO: dict[str, type[Steps]] = {"reference": ReferenceSteps, "torch": TorchSteps, "flax": FlaxSteps}


def kept_as(out: Path) -> Framework:
    """Return whose files in ``out`` a state is read from where either would do."""
    flax = (out / "flax").is_dir() or (out / WEIGHT_FILES["flax"]).is_file()
    return "flax" if flax else "torch"


def rate_of(resumed: Resumed, step: int) -> float:
    """Return the rate of the update with ``step`` before it."""
    own = resumed.state.training
    if own.schedule == "rsqrt":
        return rsqrt_rate(step, own.learning_rate, own.num_warmup_steps, dims(resumed.config)["hidden"])
    return linear_rate(step, own.learning_rate, own.num_warmup_steps, own.num_train_steps)


def canonical_slots(resumed: Resumed, framework: Framework) -> dict[str, Arrays]:
    """Return a state's slots in canonical layout: framework's name -> kind -> float64 values."""
    return {
        name: {
            slot.kind: x
            for kind, values in own.items()
            for slot, x in [_canonical(resumed, framework, name, kind, values)]
        }
        for name, own in resumed.slots.items()
    }


def canonical_state(
    resumed: Resumed, framework: Framework, weights: Mapping[str, np.ndarray], slots: Mapping[str, np.ndarray]
) -> Arrays:
    """Return a framework's weights (by its names) and slots (by CANONICAL/kind) in canonical names and layout."""
    sizes, found = dims(resumed.config), Arrays()
    places = {row.name: place for place, row in resumed.rows.items()}
    for place, x in weights.items():
        row = resumed.rows[place]
        found[row.name] = change_layout(x, framework_axes(row, framework), row.axes, sizes).astype(np.float64)
    for name, x in slots.items():
        weight, _, kind = name.rpartition("/")
        slot, values = _canonical(resumed, framework, places[weight], kind, x)
        found[slot.name] = values
    return found


def _canonical(
    resumed: Resumed, framework: Framework, place: str, kind: str, values: np.ndarray
) -> tuple[Slot, np.ndarray]:
    row = resumed.rows[place]
    axes = framework_axes(row, framework)
    slot = next(slot for each in ("m", "v", "row", "column") if (slot := Slot(row, each)).under(axes).kind == kind)
    own = slot_axes(axes, kind)
    return slot, change_layout(values, own, slot.axes, dims(resumed.config)).astype(np.float64)
