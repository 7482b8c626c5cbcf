"""What a run holds in memory: no taps, texts, programs or models of a head that it is done with."""

import dataclasses
import gc
import tracemalloc
import weakref

import jax
import pytest

import parity.run.run
from parity.run.conditions import Options
from parity.run.run import run_parity
from parity.witnesses.witness import load_witness
from tests.parity.run.test_walk import CONFIG, SHORT, write


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return write(tmp_path_factory.mktemp("model"), CONFIG)


def test_memory_does_not_grow_with_the_layers(tmp_path):
    """Taps are dropped as they are measured: NumPy's peak over a walk stays, however many layers there are."""
    peaks = []
    for layers in (1, 5):
        config = CONFIG.replace(num_hidden_layers=layers, attention_type="original_full")
        folder = write(tmp_path / str(layers), config)
        run_parity(folder, ["base"], SHORT)  # imports and caches
        tracemalloc.start()
        result = run_parity(folder, ["base"], Options(length=512, witnesses=("torch", "reference"), losses=False))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert result.passed
    assert peaks[1] < 1.25 * peaks[0]


def test_memory_does_not_grow_with_the_texts(out, monkeypatch):
    """Beyond so many elements, taps of some texts are dropped before the next are computed."""
    peaks = []
    monkeypatch.setattr("parity.run.walk._TAPS_AT_ONCE", 512 * (6 * CONFIG.hidden_size + CONFIG.intermediate_size))
    options = Options(length=512, witnesses=("torch", "reference"), losses=False, called=False)
    for batch in (1, 1, 4):
        tracemalloc.start()
        result = run_parity(out, ["base"], dataclasses.replace(options, batch=batch))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert result.passed
    hidden = 4 * 512 * CONFIG.hidden_size * 8
    assert peaks[2] < peaks[1] + 3 * hidden  # the layers' outputs of all texts, which the head wants


def test_programs_of_large_heads_are_dropped(out, monkeypatch):
    """JAX keeps what it compiled for as long as it runs: hundreds of megabytes after eight large heads."""
    dropped = []
    monkeypatch.setattr("jax.clear_caches", lambda: dropped.append(True))
    heads = ["base", "masked-lm"]
    options = Options(length=48, witnesses=("flax", "reference"), losses=False, called=False)
    assert run_parity(out, heads, options).passed
    assert not dropped
    monkeypatch.setattr("parity.run.walk._TAPS_AT_ONCE", 0)
    assert run_parity(out, heads, options).passed
    assert len(dropped) == len(heads)


@pytest.mark.parametrize("bytes_at_most", [0, 1 << 60], ids=["large", "small"])
def test_a_large_heads_parameters_are_gone_before_the_next_heads_are_loaded(out, monkeypatch, bytes_at_most):
    """Flax's scopes, which a call leaves behind, refer to each other: only the collector finds them."""
    held, alive = [], []

    def load(name, source, setting):
        alive.append(sum(array() is not None for array in held))
        witness = load_witness(name, source, setting)
        if name == "flax":
            held.extend(weakref.ref(array) for array in jax.tree.leaves(witness.params))
        return witness

    monkeypatch.setattr(parity.run.run, "load_witness", load)
    monkeypatch.setattr(parity.run.run, "_COLLECTED", bytes_at_most)
    gc.disable()
    try:
        result = run_parity(out, ["qa", "masked-lm"], Options(length=48, witnesses=("flax", "reference"), local=False))
    finally:
        gc.enable()
    assert result.passed
    assert len(held) > 2 * 16 * CONFIG.num_hidden_layers
    assert any(alive) == (bytes_at_most > 0)
