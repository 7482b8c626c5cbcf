"""What only an accelerator can tell of the models: the original's outputs, formulations, launches, memory, order.

``python -m benchmarks.on_device`` runs these. BIGBIRD_PORT_DEVICE=cpu runs those on the CPU that have a meaning there.
"""

import dataclasses
import os

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse import formulation as formulations
from parity.given.golden import read_golden
from parity.witnesses.devices import flax_device
from tests.conftest import GOLDEN

pytestmark = pytest.mark.gpu
LIMIT = 2e-5  # float32 without TF32; another order of summation than on the CPU
CASE = GOLDEN["mini-pretrain"].cases[0]
WANTED = os.environ.get("BIGBIRD_PORT_DEVICE", "cuda")
LONG, SHORT = 4096, 1024


def config(length, **own):
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "vocab_size": 300}
    return BigBirdConfig(
        **sizes, num_hidden_layers=1, block_size=64, max_position_embeddings=length, hidden_dropout_prob=0.0, **own
    )


def texts(batch, length):
    ids = np.random.default_rng(0).integers(1, 300, (batch, length))
    ids[-1, length // 2 :] = 0
    return ids


def assert_close(hidden, case):
    real = case.inputs["input_ids"] != 0
    np.testing.assert_allclose(hidden[real], case.tensors["sequence_output"][real], rtol=0, atol=LIMIT)


@pytest.fixture
def on_torch():
    """torch's device, with full products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    if WANTED == "cpu":
        yield torch.device("cpu")
    elif not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    else:
        yield torch.device("cuda")
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def on_cuda(on_torch):
    """torch's device, which can count kernels and memory."""
    if on_torch.type != "cuda":
        pytest.skip("the CPU has no kernels to count, nor memory of its own")
    return on_torch


@pytest.fixture
def on_jax():
    """jax's accelerator, the default while the test runs, with full products."""
    if WANTED == "cpu":
        found = flax_device("cpu")
    else:
        found = next((one for one in jax.devices() if one.platform in ("gpu", "cuda", "rocm", "tpu")), None)
    if found is None:
        pytest.skip("no GPU or TPU that jax sees")
    with jax.default_device(found), jax.default_matmul_precision("highest"):
        yield found


def torch_model(length, device, dtype=torch.float32):
    return models_torch.BigBirdModel.from_config(config(length), 0).eval().to(device, dtype)


def torch_gradients(model, ids):
    model.zero_grad()
    model(ids).last_hidden_state.float().square().mean().backward()
    return {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}


def test_torch_computes_what_the_original_did(converted, on_torch):
    case = read_golden(CASE)
    out = converted("mini-pretrain")
    model = models_torch.BigBirdModel.from_pretrained(out, max_encoder_length=case.max_encoder_length).to(on_torch)
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(x).to(on_torch) for name, x in case.inputs.items()})
    assert_close(output.last_hidden_state.cpu().numpy(), case)


def test_flax_computes_what_the_original_did(converted, on_jax):
    case = read_golden(CASE)
    out = converted("mini-pretrain")
    model = models_flax.FlaxBigBirdModel.from_pretrained(out, max_encoder_length=case.max_encoder_length)
    output = model(**case.inputs, params=jax.device_put(model.params, on_jax))
    assert_close(np.asarray(output.last_hidden_state), case)


def other_formulation(monkeypatch, framework, kind):
    """Let a device run as the CPU does, or the CPU as a device does; oneDNN's products are the CPU's alone."""
    own = {"cpu": {"torch": "cuda", "flax": "gpu"}[framework]}.get(kind, "cpu")
    other = dataclasses.replace(formulations.FORMULATIONS[framework, own], onednn_from=None)
    monkeypatch.setitem(formulations.FORMULATIONS, (framework, kind), other)


def test_torch_formulations_agree(on_torch, monkeypatch):
    ids = torch.from_numpy(texts(2, SHORT)).to(on_torch)
    model = torch_model(SHORT, on_torch)
    own = torch_gradients(model, ids) | {"hidden": model(ids).last_hidden_state.detach()}
    other_formulation(monkeypatch, "torch", on_torch.type)
    other = torch_gradients(model, ids) | {"hidden": model(ids).last_hidden_state.detach()}
    assert own.keys() == other.keys()
    for name, x in own.items():
        assert torch.allclose(x, other[name], rtol=1e-4, atol=float(1e-5 * x.abs().max())), name


def flax_results(on_jax, ids):
    model = models_flax.FlaxBigBirdModel(config(ids.shape[1]), _do_init=False)
    params = jax.device_put(models_flax.FlaxBigBirdModel.from_config(config(ids.shape[1]), 0).params, on_jax)

    def loss(params):
        hidden = model(ids, params=params).last_hidden_state
        return jax.numpy.square(hidden).mean(), hidden

    run = jax.jit(jax.grad(loss, has_aux=True))
    return lambda: [np.asarray(x) for x in jax.tree.leaves(run(params))]


def test_flax_formulations_agree(on_jax, monkeypatch):
    own = flax_results(on_jax, texts(2, SHORT))()
    other_formulation(monkeypatch, "flax", on_jax.platform)
    other = flax_results(on_jax, texts(2, SHORT))()
    for x, y in zip(own, other, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5 * float(np.abs(x).max()))


def test_torch_backward_is_the_same_every_time(on_torch):
    ids = torch.from_numpy(texts(2, SHORT)).to(on_torch)
    model = torch_model(SHORT, on_torch)
    first = torch_gradients(model, ids)
    for _ in range(3):
        for name, x in torch_gradients(model, ids).items():
            assert torch.equal(x, first[name]), name


def test_flax_backward_is_the_same_every_time(on_jax):
    run = flax_results(on_jax, texts(2, SHORT))
    first = run()
    for _ in range(3):
        for x, y in zip(first, run(), strict=True):
            np.testing.assert_array_equal(x, y)


def launches(run):
    """Kernels of a call, after one that chose them."""
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if not event.key.startswith(("Memcpy", "Memset")))


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_torch_launches_do_not_grow_with_the_batch(on_cuda, backward, record_property):
    model = torch_model(SHORT, on_cuda)

    def count(batch):
        ids = torch.from_numpy(np.maximum(texts(batch, SHORT), 1)).to(on_cuda)

        def forward():
            with torch.no_grad():
                model(ids)

        return launches((lambda: torch_gradients(model, ids)) if backward else forward)

    one, eight = count(1), count(8)
    record_property("launches of one layer and the embeddings, batch 1 and 8", f"{one}, {eight}")
    assert one > 0
    assert eight <= 1.1 * one


def test_torch_memory_is_linear_in_length(on_cuda, record_property):
    """The scores of full attention would take four times as much at twice the length."""
    peaks = []
    for length in (LONG, 2 * LONG):
        model = torch_model(length, on_cuda)
        ids = torch.from_numpy(np.maximum(texts(1, length), 1)).to(on_cuda)
        torch_gradients(model, ids)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        torch_gradients(model, ids)
        peaks.append(torch.cuda.max_memory_allocated() - before)
        del model
        torch.cuda.empty_cache()
    record_property(f"MiB at {LONG} and {2 * LONG} tokens, forward and backward", f"{[x >> 20 for x in peaks]}")
    assert 0 < peaks[1] <= 2.3 * peaks[0]


def test_torch_halves_are_near(on_torch):
    ids = torch.from_numpy(texts(2, SHORT)).to(on_torch)
    with torch.no_grad():
        wide = torch_model(SHORT, on_torch)(ids).last_hidden_state
        half = torch_model(SHORT, on_torch, torch.bfloat16)(ids).last_hidden_state.float()
    assert 1e-4 < float((half - wide).abs().max() / wide.square().mean().sqrt()) < 0.3
