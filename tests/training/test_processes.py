"""torch in two processes (gloo, CPU): the mean of the original's recorded gradients, FSDP2, tensor parallelism, DCP."""

import copy

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.schema.layout import change_layout
from bigbird_port.schema.table import dims
from bigbird_port.schema.weights import framework_axes
from bigbird_port.training.carried import Asked
from models_torch.sharding import fully_sharded, make_mesh
from models_torch.training import resume
from models_torch.training.state import slot_arrays
from tests.models.gloo import run_in_processes
from tests.training.steps import KEY_BIAS, steps_of, worst

pytestmark = pytest.mark.slow  # processes that import everything anew
FROM_ZERO, ADAFACTOR = "from-zero", "adafactor"
WAYS = {"whole": None, "split": (2, 1), "heads": (1, 2)}  # sizes of the mesh: of texts, of heads
LIMIT = 1e-5


def batch_of(name, rank, way):
    """A process's texts; those that hold heads of one model have the same."""
    return steps_of(name).batch(1 if way == "heads" else rank + 1)


def state_of(run):
    """Weights and slots, whole, by canonical names."""
    slots, _ = slot_arrays(run.resumed, run.model, run.optimizer)
    weights = {run.resumed.rows[name].name: x.full_tensor() if isinstance(x, DTensor) else x
               for name, x in run.model.named_parameters()}  # fmt: skip
    return {name: torch.as_tensor(x).detach().clone() for name, x in (weights | slots).items()}


def taken(rank, out, name, way, folder):
    """Two updates, a save between them; what went where, and whether torch's own state dicts carry the state."""
    mesh = WAYS[way] and make_mesh(*WAYS[way], device_type="cpu")
    run = resume(out, loss_style="original", mesh=mesh)
    loss = run.train_step(batch_of(name, rank, way))
    found = {"loss": loss, "first": state_of(run)}
    run.save(f"{folder}/{name}-{way}")
    options = StateDictOptions(full_state_dict=True)
    kept = copy.deepcopy(get_optimizer_state_dict(run.model, run.optimizer, options=options))  # which may share memory
    found["keys"] = sorted(kept["state"])
    run.train_step(batch_of(name, rank, way))
    found["second"] = state_of(run)
    # A run that begins elsewhere, given the weights and the state dict, takes the same second step.
    other = resume(f"{folder}/{name}-{way}", loss_style="original", mesh=mesh)
    for state in other.optimizer.state.values():
        for value in state.values():
            value.zero_()
    set_optimizer_state_dict(other.model, other.optimizer, kept, options=options)
    other.train_step(batch_of(name, rank, way))
    found["loaded"] = state_of(other)
    found["local"] = {
        name: list(x.to_local().shape) for name, x in run.model.named_parameters() if isinstance(x, DTensor)
    }
    return found


def one_process(rank, folder):
    found = {}
    for name in (FROM_ZERO, ADAFACTOR):
        for way in WAYS:
            found[f"{name}, {way}"] = taken(rank, f"{folder}/{name}", name, way, folder)
    run = resume(f"{folder}/{FROM_ZERO}", loss_style="original")
    fully_sharded(run.model, make_mesh(data=2, device_type="cpu"))
    try:
        run.train_step(steps_of(FROM_ZERO).batch(1))
    except ValueError as error:
        found["replaced"] = str(error)
    try:
        resume(f"{folder}/{FROM_ZERO}").save(f"{folder}/{FROM_ZERO}")
    except ValueError as error:
        found["refused"] = str(error)
    return found


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    for name in (FROM_ZERO, ADAFACTOR):
        convert(steps_of(name).checkpoint, folder / name, Settings(to=("torch",), training=Asked()))
    return folder, run_in_processes(one_process, folder, 2, str(folder))


def told(state):
    return [name for name in state if KEY_BIAS not in name]


@pytest.mark.parametrize("way", ["whole", "split"])
def test_two_processes_give_the_mean_of_the_recorded_gradients(way, processes):
    """The first update's rate is 0, so that the original recorded two gradients at the same weights."""
    steps = steps_of(FROM_ZERO)
    run = resume(processes[0] / FROM_ZERO, loss_style="original")
    rows = {row.name: row for row in run.resumed.rows.values()}
    parts = [steps.gradients(n) for n in (1, 2)]
    for found in processes[1]:
        state = found[f"{FROM_ZERO}, {way}"]["first"]
        compared = [name for name in parts[0] if KEY_BIAS not in name]
        assert len(compared) == len(run.resumed.slots)
        for name in compared:
            mean = (np.float64(parts[0][name]) + parts[1][name]) / 2
            m = state[f"{name}/m"].numpy() / (1 - 0.9)
            m = change_layout(m, framework_axes(rows[name], "torch"), rows[name].axes, dims(run.resumed.config))
            assert np.abs(m - mean).max() < LIMIT * max(np.abs(mean).max(), 1e-2), name
            assert np.abs(m - parts[0][name]).max() > 1e-3 * np.abs(mean).max()  # that of one process is another
        assert float(found[f"{FROM_ZERO}, {way}"]["loss"]) == pytest.approx(steps.series("loss")[:2].mean(), abs=LIMIT)


@pytest.mark.parametrize("name", [FROM_ZERO, ADAFACTOR])
@pytest.mark.parametrize("way", list(WAYS))
def test_split_or_whole_the_steps_are_those_of_one_process(way, name, processes):
    run = resume(processes[0] / name, loss_style="original")
    parts = [steps_of(name).batch(n) for n in ((1,) if way == "heads" else (1, 2))]
    for which in ("first", "second"):
        run.train_step(parts)
        expected = state_of(run)
        for found in processes[1]:
            state = found[f"{name}, {way}"][which]
            assert state.keys() == expected.keys()
            assert worst(state, {key: x.numpy() for key, x in expected.items()}, told(expected))[0] < LIMIT


@pytest.mark.parametrize("name", [FROM_ZERO, ADAFACTOR])
@pytest.mark.parametrize("way", list(WAYS))
def test_torchs_state_dicts_carry_the_state_by_the_models_names(way, name, processes):
    run = resume(processes[0] / name, loss_style="original")
    for found in processes[1]:
        own = found[f"{name}, {way}"]
        for key, x in own["second"].items():
            np.testing.assert_allclose(own["loaded"][key], x, rtol=1e-6, atol=1e-9, err_msg=key)
    assert set(processes[1][0][f"{name}, {way}"]["keys"]) == set(run.resumed.slots)


def test_parameters_are_split(processes):
    shapes = {name: list(x.shape) for name, x in resume(processes[0] / FROM_ZERO).model.named_parameters()}
    local = processes[1][0][f"{FROM_ZERO}, split"]["local"]
    assert all(local[name] == [(shape[0] + 1) // 2, *shape[1:]] for name, shape in shapes.items())
    heads = processes[1][0][f"{FROM_ZERO}, heads"]["local"]["bert.encoder.layer.0.attention.self.query.weight"]
    assert heads == [shapes["bert.encoder.layer.0.attention.self.query.weight"][0] // 2, heads[1]]


@pytest.mark.parametrize("way", list(WAYS))
def test_a_save_of_two_processes_is_one_whole_save(way, processes):
    saved = resume(processes[0] / f"{FROM_ZERO}-{way}", loss_style="original")
    assert saved.step == 1
    state = state_of(saved)
    for key, x in processes[1][0][f"{FROM_ZERO}, {way}"]["first"].items():
        assert torch.equal(state[key], x), key


def test_what_cannot_go_on_is_told_to_every_process(processes):
    for found in processes[1]:
        assert "replaced after resume" in found["replaced"]
        assert "exists already" in found["refused"] or "which convert wrote" in found["refused"]


def test_two_processes_differ_from_one(processes):
    alone = resume(processes[0] / FROM_ZERO, loss_style="original")
    alone.train_step(steps_of(FROM_ZERO).batch(1))
    one, two = state_of(alone), processes[1][0][f"{FROM_ZERO}, whole"]["first"]
    name = "encoder.layer.0.output.dense.kernel/m"
    assert not np.allclose(one[name], two[name], rtol=0.05)
