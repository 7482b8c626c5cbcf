"""The attention of both frameworks against a dense one in float64, written differently."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import models_flax.attention.block_sparse as flax_attention
import models_flax.attention.full as flax_full
import models_flax.attention.lists as flax_lists
import models_torch.attention.block_sparse as torch_attention
import models_torch.attention.full as torch_full
import models_torch.attention.lists as torch_lists
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import FORMULATIONS, formulation
from bigbird_port.sparse.pattern import Pattern, layer_pattern

N, H, W = 3, 8, 16


def run_torch(q, k, v, mask, pattern, block=W):
    lists = torch_lists.key_lists(pattern, torch.device("cpu"))
    q, k, v, mask = (torch.from_numpy(x) for x in (q, k, v, mask))
    return torch_attention.block_sparse_attention(q, k, v, mask, lists, block).numpy()


def run_flax(q, k, v, mask, pattern, block=W):
    lists = flax_lists.key_lists(pattern)
    with jax.default_matmul_precision("highest"):
        return np.asarray(
            flax_attention.block_sparse_attention(*(jnp.asarray(x) for x in (q, k, v, mask)), lists, block)
        )


BOTH = pytest.mark.parametrize("run", [run_torch, run_flax])


def dense(q, k, v, mask, pattern: Pattern, block=W):
    """Every pair scored; log(how often the key's block stands in the query block's list) added; padded queries 0."""
    L = q.shape[2]
    n = -(-L // block)
    counts = np.zeros((q.shape[1], n, n))
    rows = pattern.key_blocks.shape[1]
    for h, i, s in np.argwhere(pattern.live):
        counts[h, i + 1, pattern.key_blocks[h, i, s]] += 1
    counts[:, 0] = 1
    counts[:, rows + 1 :] = 1
    with np.errstate(divide="ignore"):
        bias = np.log(counts).repeat(block, 1).repeat(block, 2)[:, :L, :L]
    scores = np.einsum("bnqh,bnkh->bnqk", q.astype(np.float64), k.astype(np.float64)) / np.sqrt(q.shape[-1])
    scores = scores + bias + np.where(mask, 0, -1e30)[:, None, None]
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bnqk,bnkh->bqnh", weights, v) * mask[:, :, None, None]


def config_for(**settings):
    return BigBirdConfig(
        hidden_size=N * H, num_attention_heads=N, block_size=W, max_position_embeddings=4096, **settings
    )


def arrays(batch, length, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal((batch, N, length, H), np.float32) for _ in range(3)]


@BOTH
@pytest.mark.parametrize(
    ("settings", "lengths"),
    [
        ({}, [1024, 1024]),  # the paper plan, which repeats blocks
        ({}, [528, 200]),  # the general plan, padding that ends inside a block
        ({}, [600, 17, 1]),  # not a multiple of the block; almost all padding
        ({"max_encoder_length": 1024}, [300, 128, 65]),  # shorter than the pattern's length
        ({"max_encoder_length": 1024}, [10]),  # one block only
        ({"max_encoder_length": 1024}, [32, 16]),  # two blocks
        ({"max_encoder_length": 1024}, [1009]),  # the last global block is there, in part
        ({"random_blocks": "transformers"}, [640, 333]),
        ({"num_random_blocks": 1}, [544]),
        ({"num_random_blocks": 5}, [2048]),
    ],
)
def test_equals_dense_attention_with_multiplicities(run, settings, lengths):
    length = max(lengths)
    q, k, v = arrays(len(lengths), length)
    mask = np.arange(length) < np.array(lengths)[:, None]
    pattern = layer_pattern(config_for(**settings), 1, length)
    np.testing.assert_allclose(run(q, k, v, mask, pattern), dense(q, k, v, mask, pattern), rtol=0, atol=3e-6)


@BOTH
def test_dropping_duplicates_is_seen(run):
    """The negative control: with every repeated block counted once the result is another."""
    q, k, v = arrays(1, 1024)
    mask = np.ones((1, 1024), bool)
    pattern = layer_pattern(config_for(), 0, 1024)
    live = pattern.live.copy()
    for h, i in np.ndindex(live.shape[:2]):
        seen = set()
        for s in range(live.shape[2]):
            live[h, i, s] &= pattern.key_blocks[h, i, s] not in seen
            seen.add(pattern.key_blocks[h, i, s])
    assert live.sum() < pattern.live.sum()
    once = run(q, k, v, mask, replace(pattern, live=live))
    assert np.abs(once - dense(q, k, v, mask, pattern)).max() > 0.01


@BOTH
def test_padding_does_not_reach_real_tokens(run):
    """What stands in padded positions changes nothing, bit for bit."""
    q, k, v = arrays(2, 528)
    mask = np.arange(528) < np.array([[528], [250]])
    pattern = layer_pattern(config_for(), 0, 528)
    first = run(q, k, v, mask, pattern)
    for x in (q, k, v):
        x[1, :, 250:] = 1e4
    np.testing.assert_array_equal(run(q, k, v, mask, pattern), first)
    assert not first[1, 250:].any()


@BOTH
def test_a_text_of_nothing_but_padding_gives_zeros(run):
    q, k, v = arrays(1, 528)
    result = run(q, k, v, np.zeros((1, 528), bool), layer_pattern(config_for(), 0, 528))
    assert not result.any()


@BOTH
def test_large_scores_do_not_overflow(run):
    q, k, v = arrays(1, 528, scale=1e4)
    result = run(q, k, v, np.arange(528)[None] < 400, layer_pattern(config_for(), 0, 528))
    assert np.isfinite(result).all()


@pytest.fixture(params=[None, 2 * N * 37 * 10, 1], ids=["all queries at once", "ten at once", "one by one"])
def scores_at_once(request, monkeypatch):
    for name in (("torch", "cpu"), ("flax", "cpu")):
        changed = replace(formulation(*name), scores_at_once=request.param)
        monkeypatch.setitem(FORMULATIONS, name, changed)


def both_in_full(q, k, v, mask, causal):
    tensors = [torch.from_numpy(x) for x in (q, k, v, mask)]
    with jax.default_matmul_precision("highest"):
        flax = flax_full.full_attention(*(jnp.asarray(x) for x in (q, k, v, mask)), causal)
    return torch_full.full_attention(*tensors, causal).numpy(), np.asarray(flax)


@pytest.mark.usefixtures("scores_at_once")
@pytest.mark.parametrize("causal", [False, True])
def test_full_attention_equals_dense(causal):
    q, k, v = arrays(2, 37)
    mask = np.arange(37) < np.array([[37], [20]])
    scores = (
        np.einsum("bnqh,bnkh->bnqk", q.astype(np.float64), k) / np.sqrt(H) + np.where(mask, 0, -1e30)[:, None, None]
    )
    if causal:
        scores = np.where(np.tri(37, dtype=bool), scores, -1e30)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bnqk,bnkh->bqnh", weights / weights.sum(-1, keepdims=True), v)
    for found in both_in_full(q, k, v, mask, causal):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.usefixtures("scores_at_once")
def test_the_queries_of_full_attention_are_the_last_of_the_keys_or_the_mask_says():
    q, k, v = arrays(2, 37)
    mask = np.arange(37) < np.array([[37], [30]])
    seen = np.tri(37, dtype=bool) & mask[:, None]
    for whole, late, told in zip(
        both_in_full(q, k, v, mask, causal=True),
        both_in_full(q[:, :, 14:], k, v, mask, causal=True),
        both_in_full(q[:, :, 14:], k, v, np.ascontiguousarray(seen[:, 14:]), causal=False),
        strict=True,
    ):
        np.testing.assert_allclose(late, whole[:, 14:], rtol=0, atol=2e-6)
        np.testing.assert_allclose(told, whole[:, 14:], rtol=0, atol=2e-6)
        assert np.abs(np.diff(whole, axis=1)).max(axis=(2, 3)).min() > 1e-3  # no two queries are alike


def test_gradients_of_the_twins_agree():
    q, k, v = arrays(1, 544)
    mask = np.arange(544)[None] < 500
    pattern = layer_pattern(config_for(), 1, 544)
    weight = np.random.default_rng(1).standard_normal((1, 544, N, H), np.float32)
    tensors = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    lists = torch_lists.key_lists(pattern, torch.device("cpu"))
    out = torch_attention.block_sparse_attention(*tensors, torch.from_numpy(mask), lists, W)
    (out * torch.from_numpy(weight)).sum().backward()

    def loss(q, k, v):
        lists = flax_lists.key_lists(pattern)
        return (flax_attention.block_sparse_attention(q, k, v, jnp.asarray(mask), lists, W) * weight).sum()

    with jax.default_matmul_precision("highest"):
        gradients = jax.grad(loss, argnums=(0, 1, 2))(*(jnp.asarray(x) for x in (q, k, v)))
    for ours, theirs in zip(tensors, gradients, strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours.grad.numpy(), theirs, rtol=0, atol=2e-5)
