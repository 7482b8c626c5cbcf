"""Scores of every word: the gradient that takes some tokens alone is the usual one, and takes no others."""

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp
from torch.nn import functional

from models_flax import scores as flax_scores
from models_torch import few_rows, scores

B, L, D, V = 2, 8, 6, 11


def arrays(labelled, dtype=np.float64):
    """x, words, bias, and weights of a sum of scores that are 0 but for some tokens."""
    rng = np.random.default_rng(labelled)
    x, words, bias = (rng.standard_normal(shape) for shape in ((B, L, D), (V, D), (V,)))
    given = np.zeros((B * L, V))
    given[rng.permutation(B * L)[:labelled]] = rng.standard_normal((labelled, V))
    return [array.astype(dtype) for array in (x, words, bias, given.reshape(B, L, V))]


def torch_gradients(function, labelled):
    *inputs, given = (torch.from_numpy(array) for array in arrays(labelled))
    inputs = [x.requires_grad_() for x in inputs]
    return torch.autograd.grad((function(*inputs) * given).sum(), inputs)


@pytest.mark.parametrize("labelled", [0, 1, 3, 4, 5, 12, 16])
def test_torch_gradients_are_the_usual_ones(labelled):
    expected = torch_gradients(functional.linear, labelled)
    for found, wanted in zip(torch_gradients(scores.word_scores, labelled), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_torch_gradients_have_gradients():
    *inputs, _ = (torch.from_numpy(array) for array in arrays(16))
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(scores.word_scores, inputs)
    assert torch.autograd.gradgradcheck(scores.word_scores, inputs)


def test_torch_leaves_out_tokens_without_a_gradient(monkeypatch):
    counted = []
    right = torch.Tensor.__matmul__

    def product(self, other):
        counted.append(len(self))
        return right(self, other)

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    torch_gradients(scores.word_scores, 3)
    assert counted == [3, V]  # rows of the gradient, and of its transposed
    counted.clear()
    monkeypatch.setattr(scores, "_WORTH", 0)
    torch_gradients(scores.word_scores, 3)
    assert counted == [B * L, V]


def test_few_tokens_have_the_usual_scores():
    x, words, bias, _ = (torch.from_numpy(array) for array in arrays(1, np.float32))
    x = x[:, :3]
    assert 2 * 3 in few_rows._FEW
    with torch.no_grad():
        for given in (None, bias):
            found = scores.word_scores(x, words, given)
            assert found.is_contiguous()
            torch.testing.assert_close(found, functional.linear(x, words, given), rtol=1e-5, atol=1e-5)


def test_torch_compiles_and_transforms_the_usual_product():
    *inputs, _ = (torch.from_numpy(array) for array in arrays(1))
    expected = functional.linear(*inputs)
    torch.testing.assert_close(torch.vmap(scores.word_scores, in_dims=(0, None, None))(*inputs), expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = scores.word_scores(*(x.float().requires_grad_() for x in inputs))
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize("labelled", [0, 1, 4, 5, 16])
def test_flax_gradients_are_the_usual_ones(labelled):
    *inputs, given = (jnp.asarray(array, jnp.float32) for array in arrays(labelled))

    def usual(x, words, bias):
        return x @ words.T + bias

    def gradients(function):
        return jax.jit(jax.grad(lambda *inputs: (function(*inputs) * given).sum(), argnums=(0, 1, 2)))(*inputs)

    for found, wanted in zip(gradients(flax_scores.word_scores), gradients(usual), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_flax_takes_few_tokens_on_a_cpu_alone_and_not_on_a_mesh():
    *inputs, given = (jnp.asarray(array, jnp.float32) for array in arrays(4))
    gradient = jax.jit(jax.grad(lambda *inputs: (flax_scores.word_scores(*inputs) * given).sum()))
    few = f"tensor<{B * L // 4}x{V}xf32>"
    assert few in gradient.trace(*inputs).lower(lowering_platforms=("cpu",)).as_text()
    assert few not in gradient.trace(*inputs).lower(lowering_platforms=("tpu",)).as_text()
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):
        assert few not in gradient.trace(*inputs).lower(lowering_platforms=("cpu",)).as_text()
