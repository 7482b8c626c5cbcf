"""The gradient of block-sparse attention, which computes the probabilities again, against that of plain operations."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import models_flax.attention.block_sparse as flax_attention
import models_flax.attention.gradient as flax_backward
import models_flax.attention.lists as flax_lists
import models_torch.attention.block_sparse as torch_attention
import models_torch.attention.gradient as torch_gradient
import models_torch.attention.lists as torch_lists
import models_torch.attention.plain as torch_plain
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import FORMULATIONS
from bigbird_port.sparse.pattern import layer_pattern

N, H = 2, 2
CPU = torch.device("cpu")


def tiny_case(lengths, **settings):
    """q, k, v float64 [B, N, L, H], mask, and the pattern: 2 heads, blocks of 2."""
    config = BigBirdConfig(
        hidden_size=N * H, num_attention_heads=N, block_size=2, max_position_embeddings=4096, **settings
    )
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((len(lengths), N, max(lengths), H)) for _ in range(3)]
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return arrays, mask, layer_pattern(config, 1, max(lengths))


# transformers' blocks repeat block 0: duplicates. The last global block is there, in part or whole, or not.
CASES = {
    "padding, both global blocks, duplicates": tiny_case(
        [20, 13], random_blocks="transformers", num_random_blocks=2, max_encoder_length=20
    ),
    "a last block in part": tiny_case([19, 1], random_blocks="transformers", num_random_blocks=1),
    "shorter than the pattern": tiny_case([11], random_blocks="transformers", max_encoder_length=40),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def torch_function(case):
    arrays, mask, pattern = case
    lists = torch_lists.key_lists(pattern, CPU)
    inputs = tuple(torch.from_numpy(x).requires_grad_() for x in arrays)
    return lambda *qkv: torch_attention.block_sparse_attention(*qkv, torch.from_numpy(mask), lists, 2), inputs


def plain(monkeypatch):
    """Leave the gradient to autograd, as it is for a compiler."""
    monkeypatch.setattr(torch_gradient.BlockSparse, "apply", torch_gradient.every_head)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")  # torch's own, in forward mode
@EACH
@pytest.mark.quick("shorter than the pattern")
def test_the_gradient_is_that_of_finite_differences(case):
    function, inputs = torch_function(case)
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)


def test_the_second_derivative_is_that_of_finite_differences():
    function, inputs = torch_function(CASES["a last block in part"])
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True, atol=1e-4)


@EACH
def test_torch_func_goes_through_it(case, monkeypatch):
    function, inputs = torch_function(case)
    twice = tuple(torch.stack((x, 2 * x)).detach() for x in inputs)

    def per_sample():
        return torch.func.vmap(torch.func.grad(lambda *qkv: function(*qkv).sin().sum(), (0, 1, 2)))(*twice)

    found = per_sample()
    plain(monkeypatch)
    for a, b in zip(found, per_sample(), strict=True):
        assert b.abs().max() > 0.01
        assert (a - b).abs().max() < 1e-12


def sized_case(lengths):
    """float32, 2 heads of 16, blocks of 16."""
    config = BigBirdConfig(hidden_size=32, num_attention_heads=2, block_size=16, max_position_embeddings=4096)
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((len(lengths), 2, max(lengths), 16), np.float32) for _ in range(3)]
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    weight = rng.standard_normal((len(lengths), max(lengths), 2, 16), np.float32)
    return arrays, mask, layer_pattern(config, 1, max(lengths)), weight


def torch_gradients(case):
    arrays, mask, pattern, weight = case
    inputs = [torch.from_numpy(x).requires_grad_() for x in arrays]
    lists = torch_lists.key_lists(pattern, CPU)
    out = torch_attention.block_sparse_attention(*inputs, torch.from_numpy(mask), lists, 16)
    (out * torch.from_numpy(weight)).sum().backward()
    return [x.grad.numpy() for x in inputs]


@pytest.mark.parametrize("lengths", [[1024], [540, 300]])
def test_gradients_are_those_of_plain_operations(lengths, monkeypatch):
    case = sized_case(lengths)
    found = torch_gradients(case)
    plain(monkeypatch)
    for a, b in zip(found, torch_gradients(case), strict=True):
        assert np.abs(a - b).max() < 1e-6 * np.abs(b).max()
        assert not (a == 0).all()


def test_a_wrong_gradient_is_seen(monkeypatch):
    """The negative control: the probabilities of the backward pass are those of another mask."""
    case = sized_case([540, 300])
    right, weights = torch_gradients(case), torch_plain.weights
    gradient = torch_gradient._attend_gradient

    def faulty(q, k, v, bias, grad, delta):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch_plain, "weights", lambda q, k, bias: weights(q, k, torch.zeros_like(bias)))
            return gradient(q, k, v, bias, grad, delta)

    monkeypatch.setattr(torch_gradient, "_attend_gradient", faulty)
    for a, b in zip(torch_gradients(case), right, strict=True):
        assert np.abs(a - b).max() > 1e-3 * np.abs(b).max()


def test_no_probabilities_are_kept():
    """What the forward pass leaves for the gradient does not grow with the number of keys of a query."""
    case = sized_case([1024])
    arrays, mask, pattern, _ = case
    inputs = [torch.from_numpy(x).requires_grad_() for x in arrays]
    lists = torch_lists.key_lists(pattern, CPU)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        out = torch_attention.block_sparse_attention(*inputs, torch.from_numpy(mask), lists, 16)
    assert out.requires_grad
    assert 0 < max(kept) <= arrays[0].nbytes


def flax_gradient(case):
    """The gradient as a compiled function, and its arguments."""
    arrays, mask, pattern, weight = case
    lists = flax_lists.key_lists(pattern)

    def gradient(*qkv):
        _, vjp = jax.vjp(lambda *x: flax_attention.block_sparse_attention(*x, jnp.asarray(mask), lists, 16), *qkv)
        return vjp(jnp.asarray(weight))

    arguments = [jnp.asarray(x) for x in arrays]
    with jax.default_matmul_precision("highest"):
        return jax.jit(gradient).lower(*arguments).compile(), arguments


def test_the_flax_gradient_keeps_no_probabilities_and_is_the_same(monkeypatch):
    case = sized_case([540, 300])
    compiled, arguments = flax_gradient(case)
    monkeypatch.setattr(flax_backward, "attention", flax_backward.attention.fun)  # leaves the gradient to JAX
    plain, _ = flax_gradient(case)
    for a, b in zip(compiled(*arguments), plain(*arguments), strict=True):
        assert np.abs(b).max() > 0.01
        assert np.abs(a - b).max() < 1e-6 * np.abs(b).max()
    held, held_plain = (c.memory_analysis().temp_size_in_bytes for c in (compiled, plain))
    assert held < held_plain / 4, (held, held_plain)


@pytest.fixture(params=[None, 1], ids=["one batch", "task by task"])
def batched(request, monkeypatch):
    """Attention of all texts and heads as one batch, as on CUDA."""
    how = replace(FORMULATIONS["torch", "cuda"], kernels=False, gathered_at_once=request.param)
    monkeypatch.setitem(FORMULATIONS, ("torch", "cpu"), how)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")  # torch's own, in forward mode
@pytest.mark.usefixtures("batched")
def test_the_batch_has_the_gradients_of_finite_differences():
    function, inputs = torch_function(CASES["a last block in part"])
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True, atol=1e-4)


@EACH
@pytest.mark.usefixtures("batched")
def test_the_batch_gives_what_text_by_text_gives_and_torch_func_goes_through_it(case, monkeypatch):
    def found():
        function, inputs = torch_function(case)
        return torch.func.vmap(torch.func.grad(lambda *qkv: function(*qkv).sin().sum(), (0, 1, 2)))(
            *(torch.stack((x, 2 * x)).detach() for x in inputs)
        )

    as_one = found()
    monkeypatch.undo()
    for a, b in zip(as_one, found(), strict=True):
        assert b.abs().max() > 0.01
        assert (a - b).abs().max() < 1e-12
