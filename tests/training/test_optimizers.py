"""The optimizers of both frameworks, fed with the gradients that the original recorded."""

import copy
import json

import jax
import numpy as np
import optax
import pytest
import torch
from jax import numpy as jnp

import models_flax.training
import models_torch.training
from bigbird_port.schema.table import weights_of
from bigbird_port.training.rates import linear_rate
from models_flax.training import schedules as flax_schedules
from models_torch.training import schedules as torch_schedules
from tests.conftest import SHARED
from tests.training.steps import FOLDERS, MINI, SNAPSHOTS, steps_of, worst

LIMIT = 1e-5
SLOTS = {"m": "m", "v": "v", "row": "row", "column": "column"}


def decaying(steps):
    return {row.name for row in weights_of(steps.source.config) if row.decays}


def keywords(flags):
    return {"b1": flags["optimizer_beta1"], "b2": flags["optimizer_beta2"], "eps": flags["optimizer_epsilon"]}


def torch_steps(steps, change=lambda settings: settings, moments=lambda name, array: array):
    """Yield weights and slots behind each step, of the torch optimizer."""
    flags, begin = steps.flags, steps.after(0)
    trained = list(steps.gradients(1))
    parameters = {name: torch.nn.Parameter(torch.from_numpy(begin[name].copy())) for name in trained}
    groups = [{"params": [parameters[name] for name in trained]}]
    own = keywords(flags)
    betas = {"betas": (own["b1"], own["b2"]), "eps": own["eps"]}
    if steps.optimizer == "AdamWeightDecay":
        decays = decaying(steps)
        groups = [
            {"params": [parameters[name] for name in trained if name in decays]},
            {"params": [parameters[name] for name in trained if name not in decays], "weight_decay": 0.0},
        ]
        betas["weight_decay"] = flags["weight_decay_rate"]
    settings = {} if steps.optimizer == "Adafactor" else betas
    optimizer = getattr(models_torch.training, steps.optimizer)(groups, **change(settings))
    first = int(steps.series("global_step")[0])
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        state["step"] = torch.tensor(first)
        state |= {slot: torch.from_numpy(moments(f"{name}/{slot}", begin[f"{name}/{slot}"]).copy()) for slot in SLOTS
                  if f"{name}/{slot}" in begin}  # fmt: skip
        if steps.optimizer == "Adam":
            for power in ("beta1_power", "beta2_power"):
                state[power] = torch.tensor(float(steps.source_value(power)), dtype=torch.float32)
    for n in range(1, 9):
        for name, gradient in steps.gradients(n).items():
            parameters[name].grad = torch.from_numpy(gradient)
        for group in optimizer.param_groups:
            group["lr"] = float(steps.series("learning_rate")[n - 1])
        optimizer.step()
        found = {name: p.detach().numpy() for name, p in parameters.items()}
        found |= {f"{name}/{slot}": optimizer.state[p][slot].numpy() for name, p in parameters.items() for slot in SLOTS
                  if slot in optimizer.state[p]}  # fmt: skip
        yield n, found


def flax_steps(steps, wrap=lambda make, **settings: make(**settings)):
    """Yield weights and slots behind each step, of the optax transformation."""
    flags, begin = steps.flags, steps.after(0)
    trained = list(steps.gradients(1))
    params = {name: jnp.asarray(begin[name]) for name in trained}
    settings = {} if steps.optimizer == "Adafactor" else keywords(flags)
    if steps.optimizer == "AdamWeightDecay":
        decays = decaying(steps)
        settings |= {"weight_decay": flags["weight_decay_rate"], "decays": {name: name in decays for name in trained}}
    rates = jnp.asarray(steps.series("learning_rate"))
    first = int(steps.series("global_step")[0])
    settings["learning_rate"] = lambda step: rates[step - first]
    optimizer = wrap(getattr(models_flax.training, steps.optimizer), **settings)
    state = optimizer.init(params)

    def slots(kind):
        return {name: jnp.asarray(begin[f"{name}/{kind}"]) for name in trained if f"{name}/{kind}" in begin}

    if steps.optimizer == "Adafactor":
        own = {name: {kind: jnp.asarray(begin[f"{name}/{kind}"]) for kind in state.slots[name]} for name in trained}
        state = state._replace(step=jnp.int32(first), slots=own)
    else:
        powers = tuple(jnp.asarray(steps.source_value(f"beta{i}_power")) for i in (1, 2)) if state.powers else ()
        state = state._replace(step=jnp.int32(first), m=slots("m"), v=slots("v"), powers=powers)
    update = jax.jit(optimizer.update)
    for n in range(1, 9):
        changes, state = update({name: jnp.asarray(x) for name, x in steps.gradients(n).items()}, state, params)
        params = optax.apply_updates(params, changes)
        found = {name: np.asarray(x) for name, x in params.items()}
        if steps.optimizer == "Adafactor":
            found |= {f"{name}/{kind}": np.asarray(x) for name, own in state.slots.items() for kind, x in own.items()}
        else:
            found |= {f"{name}/{kind}": np.asarray(x) for kind in "mv" for name, x in getattr(state, kind).items()}
        yield n, found


SOME = (MINI, "adafactor", "adam")  # each rule once; the others take another twenty seconds
EACH = [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in (MINI, *FOLDERS)]


@pytest.mark.parametrize("run", [torch_steps, flax_steps])
@pytest.mark.parametrize("name", EACH)
def test_the_recorded_gradients_give_the_originals_weights_and_slots(name, run):
    steps = steps_of(name)
    for n, found in run(steps):
        if n in SNAPSHOTS:
            expected = {key: x for key, x in steps.after(n).items() if key in found}
            assert len(expected) == len(found)
            assert worst(found, expected)[0] < LIMIT, n


def end(run, steps, **keywords):
    """How far the last step's weights and slots are off."""
    found = dict(run(steps, **keywords))[8]
    expected = {name: x for name, x in steps.after(8).items() if name in found}
    weights = {name: x for name, x in expected.items() if "/" not in name}
    return worst(found, weights)[0], worst(found, expected, [name for name in expected if "/" in name])[0]


def test_a_wrong_rule_is_off():
    """The negative controls: without them the limits above would say nothing."""
    steps = steps_of(MINI)
    right = end(torch_steps, steps)
    assert max(right) < LIMIT
    wrong_decay = end(torch_steps, steps, change=lambda settings: settings | {"weight_decay": 0.0})
    swapped = end(torch_steps, steps, change=lambda settings: settings | {"eps": 1e-3})
    lost = end(torch_steps, steps, moments=lambda name, array: np.zeros_like(array))
    assert wrong_decay[0] > 3 * LIMIT
    assert swapped[0] > 100 * LIMIT
    assert min(lost) > 1000 * LIMIT


@pytest.mark.parametrize("name", [MINI, "adafactor", "adam"])
def test_foreach_changes_nothing(name):
    steps = steps_of(name)
    one_by_one = dict(torch_steps(steps, change=lambda settings: settings | {"foreach": False}))[8]
    together = dict(torch_steps(steps, change=lambda settings: settings | {"foreach": True}))[8]
    for name, x in together.items():
        np.testing.assert_array_equal(one_by_one[name], x)


@pytest.mark.parametrize("name", ["AdamWeightDecay", "Adafactor", "Adam"])
def test_optax_makes_numbers_a_part_of_the_state(name):
    """inject_hyperparams takes the class itself; what decays is no number, and static."""
    make = getattr(models_flax.training, name)
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    gradients = jax.tree.map(jnp.ones_like, params)
    static = {"decays": {"w": True, "b": False}} if name == "AdamWeightDecay" else {}
    injected = optax.inject_hyperparams(make, static_args=tuple(static))(learning_rate=0.5, **static)
    optimizer = optax.chain(optax.clip(1e9), injected)
    state = optimizer.init(params)
    assert set(state[1].hyperparams) >= {"learning_rate"}
    state[1].hyperparams["learning_rate"] = jnp.float32(0.25)
    changes, _ = jax.jit(optimizer.update)(gradients, state, params)
    plain = make(0.25, **static)
    expected, _ = plain.update(gradients, plain.init(params), params)
    for key, x in expected.items():  # a beta in float32 is another one: 1 - 0.999 is off by 1.3e-5
        np.testing.assert_allclose(changes[key], x, rtol=2e-5)
        assert float(jnp.abs(x).max()) > 0.1
    if static:
        assert float(jnp.abs(expected["w"] - expected["b"]).max()) > 1e-3


def test_a_setting_that_is_none_is_refused():
    weights = [torch.nn.Parameter(torch.ones(2))]
    for settings, message in (({"lr": -1.0}, "lr is -1.0"), ({"betas": (0.9, 1.0)}, "betas"), ({"eps": 0}, "eps is 0")):
        with pytest.raises(ValueError, match=message):
            models_torch.training.AdamWeightDecay(weights, **settings)


def test_the_state_dict_carries_everything():
    """A second optimizer that loads it takes the same step."""
    for make in (models_torch.training.AdamWeightDecay, models_torch.training.Adafactor, models_torch.training.Adam):
        torch.manual_seed(0)
        start, gradients = torch.randn(3, 4), torch.randn(3, 3, 4)
        ways = [torch.nn.Parameter(start.clone()) for _ in range(2)]
        optimizers = [make([way], lr=0.1) for way in ways]
        for gradient in gradients[:2]:
            ways[0].grad = gradient
            optimizers[0].step()
        with torch.no_grad():
            ways[1].copy_(ways[0])
        optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
        for way, optimizer in zip(ways, optimizers, strict=True):
            way.grad = gradients[2]
            optimizer.step()
        assert torch.equal(*ways)
        assert not torch.equal(ways[0], start)


def golden_schedules():
    file = SHARED / "golden/tiny-training/schedules.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    return json.loads(file.read_text())


def test_schedules_are_the_originals_at_their_boundaries():
    for case in golden_schedules():
        peak, warmup = case["learning_rate"], case["num_warmup_steps"]
        last = case.get("hidden_size", case.get("num_train_steps"))
        kind = f"{case['schedule']}_schedule"
        traced = jax.jit(getattr(flax_schedules, kind)(peak, warmup, last))
        for step, expected in zip(case["global_step"], case["values"], strict=True):
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=123.0)
            schedule = getattr(torch_schedules, kind)(optimizer, peak, warmup, last, step)
            assert schedule.last_epoch == step
            for found in (optimizer.param_groups[0]["lr"], float(traced(step))):
                assert found == pytest.approx(expected, abs=2e-7 * peak)


def test_the_rate_decays_from_step_0_and_never_reaches_the_peak():
    rates = [linear_rate(step, 1.0, 10, 100) for step in range(101)]
    assert max(rates) == pytest.approx(0.9)
    assert rates[10] == pytest.approx(0.9)
    assert rates[100] == 0
