"""Attention in oneDNN, one query block after the other: the same numbers, and only where nothing else is lost."""

from dataclasses import replace

import pytest
import torch

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import FORMULATIONS, formulation
from bigbird_port.sparse.pattern import layer_pattern
from models_torch.attention import block_sparse as attention
from models_torch.attention import onednn
from models_torch.attention.lists import key_lists

pytestmark = pytest.mark.skipif(
    not (onednn.available() and onednn._wide_vectors()), reason="torch without oneDNN, or no AVX-512"
)
CONFIG = BigBirdConfig(hidden_size=128, num_attention_heads=2, num_random_blocks=2)
L = 1000


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def products(monkeypatch):
    """Counts the products that run in oneDNN."""
    run, found = onednn.product, []

    def counted(*arguments):
        found.append(arguments)
        return run(*arguments)

    monkeypatch.setattr(onednn, "product", counted)
    return found


def case():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, L, 64) for _ in range(3))
    mask = torch.arange(L) < torch.tensor([[L], [700]])
    lists = key_lists(layer_pattern(CONFIG, 0, L), torch.device("cpu"))
    return (q, k, v), lambda *qkv: attention.block_sparse_attention(*qkv, mask, lists, 64)


def gradients(weight, **settings):
    qkv, run = case()
    inputs = [x.requires_grad_() for x in qkv]
    return inputs, torch.autograd.grad((run(*inputs) * weight).sum(), inputs, **settings)


def batched(monkeypatch):
    """Leave all products to batches of them."""
    monkeypatch.setitem(FORMULATIONS, ("torch", "cpu"), replace(formulation("torch", "cpu"), onednn_from=None))


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert b.abs().max() > 0.1
        assert (a - b).abs().max() < 2e-6 * b.abs().max()


def test_it_computes_the_same(products, monkeypatch):
    qkv, run = case()
    found = run(*qkv)
    texts, heads, listed = 2, 2, 16 - 2
    assert len(products) == 2 * texts * heads * (listed + 1)  # scores and context of each block, and of the global ones
    batched(monkeypatch)
    assert_close([found], [run(*qkv)])
    assert len(products) == 2 * texts * heads * (listed + 1)


def test_its_gradients_are_the_same(products, monkeypatch):
    weight = torch.randn(2, L, 2, 64)
    _, found = gradients(weight)
    texts, heads, listed = 2, 2, 16 - 2
    assert len(products) == (2 + 5) * texts * heads * (listed + 1)
    batched(monkeypatch)
    assert_close(found, gradients(weight)[1])


def test_a_wrong_product_is_seen(monkeypatch):
    """The negative control: one key is left out of every product."""
    qkv, run = case()
    run_product = onednn.product
    monkeypatch.setattr(onednn, "product", lambda x, w, b=None: run_product(x, torch.cat((w[:-1], w[:1])), b))
    found = run(*qkv)
    batched(monkeypatch)
    assert (found - run(*qkv)).abs().max() > 0.01


def test_second_derivatives_are_those_of_batches(products, monkeypatch):
    """A gradient that is to be differentiated is made of what autograd knows."""

    def second():
        inputs, first = gradients(torch.ones(2, L, 2, 64), create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), inputs)

    found = second()
    # forward; and the last pass, through what forward gave to the gradient
    assert len(products) == (2 + 5) * 2 * 2 * 15
    batched(monkeypatch)
    assert_close(found, second())


def elsewhere():
    qkv, run = case()
    with torch.autocast("cpu"):
        yield "autocast", lambda: run(*qkv)
    yield "float64", lambda: run(*(x.double() for x in qkv))
    yield "bfloat16", lambda: run(*(x.bfloat16() for x in qkv))
    yield "torch.func", lambda: torch.func.vmap(lambda x: run(x, *qkv[1:]))(qkv[0][None])
    torch.set_num_threads(2)
    yield "threads", lambda: run(*qkv)


def test_where_it_does_not_run(products):
    for name, run in elsewhere():
        assert run().abs().max() > 0.1, name
        assert not products, name
