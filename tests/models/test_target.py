"""A program's formulation is that of the device that it is lowered for, not of the process that traces it."""

import re
from collections import Counter

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import models_flax
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import FORMULATIONS
from models_flax.target import by_target
from tests.conftest import ROOT

LENGTH = 2048  # tokens and blocks enough for the CPU's loops over tokens, heads and lists
CONFIG = BigBirdConfig(
    vocab_size=90,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=1,
    intermediate_size=24,
    block_size=16,
    max_position_embeddings=LENGTH,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
_CHOICE = "stablehlo.case", "stablehlo.return", "stablehlo.constant"
DEVICES = ["cpu", "tpu", "cuda"]


def traced(head="MaskedLM", gradient=False, config=CONFIG, **options):
    model = getattr(models_flax, f"FlaxBigBirdFor{head}")(config, seed=1, **options)
    ids = np.ones((2, LENGTH), np.int32)
    mask = np.ones((2, LENGTH), bool)

    def scores(params, ids):
        return (model(ids, mask, params=params).logits ** 2).sum()

    return jax.jit(jax.grad(scores) if gradient else scores).trace(model.params, ids)


def loops(program, device):
    return program.lower(lowering_platforms=(device,)).as_text().count("stablehlo.while")


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_one_trace_lowers_for_each_device_as_that_device_has_it(gradient):
    """On the CPU loops over heads, over lists and over tokens, for each direction; elsewhere over lists alone."""
    program = traced(gradient=gradient)
    times = 2 if gradient else 1
    assert {device: loops(program, device) for device in DEVICES} == {"cpu": 3 * times, "tpu": times, "cuda": times}


def test_checkpointed_layers_do_too():
    program = traced(gradient=True, gradient_checkpointing=True)
    assert loops(program, "cpu") > 2 * loops(program, "tpu") > 0


def test_full_attention_does_too():
    program = traced("CausalLM", config=CONFIG.replace(is_decoder=True, attention_type="original_full"))
    assert {device: loops(program, device) for device in DEVICES} == {"cpu": 2, "tpu": 0, "cuda": 0}


def test_the_cpu_formulation_forced_in_is_seen(monkeypatch):
    """The negative control."""
    jax.clear_caches()  # which hold the layers as they were traced
    monkeypatch.setitem(FORMULATIONS, ("flax", "tpu"), FORMULATIONS["flax", "cpu"])
    assert loops(traced(), "tpu") == 3
    jax.clear_caches()


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_a_cpu_run_on_a_machine_with_a_device_is_the_cpus(backend, monkeypatch):
    expected = _steps(traced().lower(lowering_platforms=("cpu",)).as_text())
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    jax.clear_caches()  # which hold the layers as they were traced
    assert _steps(traced().lower(lowering_platforms=("cpu",)).as_text()) == expected


def _steps(program):
    """How often each operation stands in a program, but for its choice of a way, of which a TPU's machine has more."""
    return Counter(re.findall(r"stablehlo\.\w+", program)) - Counter(dict.fromkeys(_CHOICE, 1 << 30))


def test_an_exported_program_holds_the_ways_of_its_platforms_alone():
    def export(*platforms):
        attention = jax.jit(lambda x: by_target(lambda how: how.blocks_at_once, _times, x))
        return jax.export.export(attention, platforms=platforms)(jax.ShapeDtypeStruct((3,), jnp.float32))

    factors = {device: FORMULATIONS["flax", device].blocks_at_once for device in ("cpu", "tpu")}
    assert factors["cpu"] != factors["tpu"]
    for platforms in (("cpu",), ("tpu",), ("cpu", "tpu")):
        found = {float(x) for x in re.findall(r"dense<([\d.e+]+)> : tensor<f32>", export(*platforms).mlir_module())}
        assert found == {factors[device] for device in platforms}
    assert export("cpu", "tpu").call(jnp.ones(3)).tolist() == [factors["cpu"]] * 3


def _times(factor, x):
    return x * float(factor)


def test_operations_that_run_one_by_one_take_the_way_of_the_device_that_holds_their_arrays(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert by_target(lambda how: how.blocks_at_once, _times, jnp.ones(1)) == FORMULATIONS["flax", "cpu"].blocks_at_once


def test_nothing_asks_for_the_backend_of_the_process():
    for package in ("models_flax", "bigbird_port"):
        for path in (ROOT / package).rglob("*.py"):
            kernels = path.name == "target.py"  # whether a process has a TPU decides what it traces, not what runs
            assert path.read_text(encoding="utf-8").count("default_backend") == kernels, path
