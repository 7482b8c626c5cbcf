"""Between a training state that was read and an optimizer that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax import numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from bigbird_port.schema.table import dims
from bigbird_port.training.resuming import Resumed
from bigbird_port.training.settings import Training
from models_flax.training.devices import like, whole
from models_flax.training.optimizers import Adafactor, Adam, AdamWeightDecay, FactorsState
from models_flax.training.schedules import linear_schedule, rsqrt_schedule

Params = dict[str, Any]
_TRAINED, _STILL = "trained", "still"


def make_optimizer(resumed: Resumed) -> optax.GradientTransformation:
    """Return the optimizer of a run, over the weights that train; the others stay as they are."""
    training, schedule = resumed.state.training, make_schedule(resumed)
    labels = {name: _TRAINED if name in resumed.slots else _STILL for name in resumed.rows}
    own = _optimizer(training, schedule, resumed.decays)
    return optax.partition({_TRAINED: own, _STILL: optax.set_to_zero()}, unflatten_dict(labels, sep="/"))


def _optimizer(training: Training, rate: Callable[[Any], Any], decays: frozenset[str]) -> optax.GradientTransformation:
    if training.optimizer == "Adafactor":
        return Adafactor(rate)
    numbers = training.beta1, training.beta2, training.epsilon
    if training.optimizer == "Adam":
        return Adam(rate, *numbers)

    def marked(params: Params) -> Params:
        found: Params = jax.tree_util.tree_map_with_path(lambda path, _: _name(path) in decays, params)
        return found

    return AdamWeightDecay(rate, *numbers, training.weight_decay_rate, marked)


def make_schedule(resumed: Resumed) -> Callable[[Any], Any]:
    """Return the schedule of a run, a function of the updates so far."""
    training = resumed.state.training
    peak, warmup = training.learning_rate, training.num_warmup_steps
    if training.schedule == "rsqrt":
        return rsqrt_schedule(peak, warmup, dims(resumed.config)["hidden"])
    return linear_schedule(peak, warmup, training.num_train_steps)


def begun(resumed: Resumed, optimizer: optax.GradientTransformation, params: Params, mesh: Any = None) -> Any:
    """Return the optimizer's state at the run's step, with its slots split as ``params`` are; numbers are whole."""
    flat = flatten_dict(params, sep="/")

    def filled(tree: Any, kind: str = "") -> Any:
        def value(path: Any, leaf: Array) -> Array:
            name, own = (_name(path), kind) if kind else _name(path).rsplit("/", 1)
            return like(resumed.slots[name][own], flat[name], own)

        return jax.tree_util.tree_map_with_path(value, tree)

    def number(value: Any) -> Array:
        found = jnp.asarray(value)
        return found if mesh is None else jax.device_put(found, NamedSharding(mesh, PartitionSpec()))

    state = optimizer.init(params)
    own = state.inner_states[_TRAINED].inner_state
    step = number(jnp.asarray(resumed.state.global_step, own.step.dtype))
    if isinstance(own, FactorsState):
        own = own._replace(step=step, slots=filled(own.slots))
    else:
        powers = tuple(number(jnp.float32(x)) for x in resumed.state.powers.values())
        own = own._replace(step=step, m=filled(own.m, "m"), v=filled(own.v, "v"), powers=powers)
    masked = state.inner_states[_TRAINED]._replace(inner_state=own)
    return state._replace(inner_states={**state.inner_states, _TRAINED: masked})


def own_state(opt_state: Any) -> Any:
    """Return the state of the rule itself: MomentsState or FactorsState."""
    return opt_state.inner_states[_TRAINED].inner_state


def slot_arrays(resumed: Resumed, opt_state: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the slots of an optimizer by CANONICAL/kind, as the weights lie here, and the powers of Adam's betas."""
    own = own_state(opt_state)
    slots = {f"{resumed.rows[name].name}/{kind}": whole(x) for name, kind, x in _each(own)}
    powers = () if isinstance(own, FactorsState) else own.powers
    return slots, {name: float(x) for name, x in zip(resumed.state.powers, powers, strict=True)}


def _each(own: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(own, FactorsState):
        for path, x in flatten_dict(own.slots, sep="/").items():
            if not isinstance(x, optax.MaskedNode):
                name, _, kind = path.rpartition("/")
                yield name, kind, x
        return
    for kind in ("m", "v"):
        for name, x in flatten_dict(getattr(own, kind), sep="/").items():
            if not isinstance(x, optax.MaskedNode):
                yield name, kind, x


def _name(path: Any) -> str:
    return "/".join(str(part.key) for part in path)
