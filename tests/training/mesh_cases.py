"""Run by test_mesh.py in a process with two host devices: python -m tests.training.mesh_cases CASE FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.schema.layout import change_layout
from bigbird_port.schema.table import dims
from bigbird_port.schema.weights import framework_axes
from bigbird_port.training.carried import Asked
from models_flax.sharding import make_mesh
from models_flax.training import resume
from models_flax.training.state import own_state, slot_arrays
from tests.training.steps import KEY_BIAS, steps_of, worst

LIMIT = 1e-5
FROM_ZERO, ADAFACTOR = "from-zero", "adafactor"


def converted(folder: Path, name: str) -> Path:
    convert(steps_of(name).checkpoint, folder / name, Settings(to=("flax",), training=Asked()))
    return folder / name


def joined(name: str) -> dict[str, np.ndarray]:
    """The texts of the first two updates as one batch: those of two devices."""
    parts = [steps_of(name).batch(n) for n in (1, 2)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def state_of(run) -> dict[str, np.ndarray]:
    slots, _ = slot_arrays(run.resumed, run.opt_state)
    flat = flatten_dict(run.params, sep="/")
    return {run.resumed.rows[name].name: np.asarray(x) for name, x in flat.items()} | slots


def recorded(folder: Path) -> None:
    """The mean of the original's gradients: the first update's rate is 0, so that two are of the same weights."""
    steps, out = steps_of(FROM_ZERO), converted(folder, FROM_ZERO)
    parts = [steps.gradients(n) for n in (1, 2)]
    off = {}
    for replicas in (None, 1):  # each device a replica; all texts together
        run = resume(out, loss_style="original", mesh=make_mesh(data=2), replicas=replicas)
        loss, state = float(run.train_step(joined(FROM_ZERO))), state_of(run)
        off[replicas], rows = 0.0, {row.name: row for row in run.resumed.rows.values()}
        for name, one in parts[0].items():
            mean = (np.float64(one) + parts[1][name]) / 2
            axes = framework_axes(rows[name], "flax")
            m = change_layout(state[f"{name}/m"] / (1 - 0.9), axes, rows[name].axes, dims(run.resumed.config))
            off[replicas] = max(off[replicas], float(np.abs(m - mean).max() / max(np.abs(mean).max(), 1e-2)))
        if replicas is None:
            assert abs(loss - steps.series("loss")[:2].mean()) < LIMIT
    assert off[None] < LIMIT, off
    assert off[1] > 100 * LIMIT, off  # one denominator for all: another mean


def split(folder: Path) -> None:
    """State lies as the weights do before and behind updates; they are those of one device, also over heads."""
    for name in (FROM_ZERO, ADAFACTOR):
        out = converted(folder, name)
        alone = resume(out, loss_style="original", replicas=2)
        for _ in range(2):
            alone.train_step(joined(name))
        expected = state_of(alone)
        for sizes in ({"data": 2}, {"model": 2}):
            run = resume(out, loss_style="original", mesh=make_mesh(**sizes), replicas=2)
            check_places(run, sizes)
            for _ in range(2):
                run.train_step(joined(name))
            check_places(run, sizes)
            told = [key for key in expected if KEY_BIAS not in key]
            found = worst(state_of(run), expected, told)
            assert found[0] < LIMIT, (name, sizes, found)
            run.save(folder / f"{name}-{next(iter(sizes))}")
            again = resume(folder / f"{name}-{next(iter(sizes))}")
            assert again.step == run.step
            for key, x in state_of(again).items():
                np.testing.assert_array_equal(x, state_of(run)[key])


def check_places(run, sizes) -> None:
    """m and v are split as their weight; of the factors, each along the axis that is left to it."""
    own = own_state(run.opt_state)
    path = ("bert", "encoder", "layer", "0", "intermediate", "dense", "kernel")  # hidden x inner: inner is split

    def at(tree):
        for part in path:
            tree = tree[part]
        return tree

    weight = at(run.params)
    pieces = sizes.get("model", 1)
    shard = weight.addressable_shards[0].data.shape
    assert shard == (weight.shape[0], weight.shape[1] // pieces)
    assert len(weight.devices()) == 2
    if hasattr(own, "m"):
        assert at(own.m).addressable_shards[0].data.shape == at(own.v).addressable_shards[0].data.shape == shard
    else:
        slots = at(own.slots)
        assert slots["row"].addressable_shards[0].data.shape == (weight.shape[0],)
        assert slots["column"].addressable_shards[0].data.shape == (weight.shape[1] // pieces,)


if __name__ == "__main__":
    assert len(jax.devices()) == 2
    globals()[sys.argv[1]](Path(sys.argv[2]))
