"""The kernels for TPUs, interpreted, against the float64 reference."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from bigbird_port.sparse.formulation import FORMULATIONS, formulation
from bigbird_port.sparse.packing import make_packing, packed_pattern
from bigbird_port.sparse.pattern import Pattern, Text
from bigbird_port.sparse.pattern import key_lists as listed
from models_flax.attention import kernels
from models_flax.attention.block_sparse import block_sparse_attention
from models_flax.attention.lists import key_lists
from models_flax.target import with_kernels
from parity.reference.attention import Visibility, attend, attend_backward, multiplicity

LIMIT = 1e-5  # in float32, of numbers up to about 5
ON_TPU = FORMULATIONS["flax", "tpu"]
NAMES = ("context", "dq", "dk", "dv")


@pytest.fixture(autouse=True)
def one_list_at_once(monkeypatch):
    """What is interpreted is compiled for this machine, list by list."""
    monkeypatch.setattr(kernels, "LISTS_AT_ONCE", 1)


def random_blocks(N, n, r=2, seed=0):
    """Random blocks that repeat each other and the window here and there, and differ from head to head."""
    return np.random.default_rng(seed).integers(0, n, (N, n - 2, r)).astype(np.int32)


def pattern_of(random):
    n = random.shape[1] + 2
    return Pattern(*listed(random), np.arange(1, n - 1, dtype=np.int32), (Text(0, n),))


def arrays(B, N, L, H):
    """Queries, keys, values and the gradient of the context, [B, N, L, H]."""
    rng = np.random.default_rng(1)
    return [rng.standard_normal((B, N, L, H), np.float32) for _ in range(4)]


def masked(B, L, kind):
    """Which tokens are real: padding is in the last text, in "mixed" also inside the first one."""
    mask = np.ones((B, L), bool)
    if kind == "right":
        mask[-1, L - L // 3 :] = False
    elif kind == "left":
        mask[-1, : L // 3] = False
    elif kind == "mixed":
        mask[-1, 3:17] = mask[-1, L - 5 :] = mask[0, L // 2 : L // 2 + 9] = False
    elif kind == "nothing":
        mask[-1] = False
    return mask


def reference(values, mask, counts, block):
    """Context and gradients [B, N, L, H] in float64."""
    q, k, v, grad = (x.astype(np.float64) for x in values)
    seen = Visibility(mask, counts, block, causal=False)
    return attend(q, k, v, seen).swapaxes(1, 2), *attend_backward(q, k, v, seen, grad.swapaxes(1, 2))


@functools.partial(jax.jit, static_argnums=0)
def both_ways(block, lists, mask, q, k, v, grad):
    def run(q, k, v):
        return block_sparse_attention(q, k, v, mask, lists, block, ON_TPU).swapaxes(1, 2)

    context, pull = jax.vjp(run, q, k, v)
    return context, *pull(grad)


def by_kernels(values, mask, lists, block):
    """The same by the kernels."""
    with jax.default_matmul_precision("highest"):
        found = both_ways(block, lists, jnp.asarray(mask), *map(jnp.asarray, values))
    return [np.asarray(x, np.float32) for x in found]


def errors(found, expected):
    assert all(np.abs(x).max() > 0.5 for x in expected)
    return {name: np.abs(a - b).max() for name, a, b in zip(NAMES, found, expected, strict=True)}


# texts, heads, head size, block size, blocks, padding
CASES = {
    "two heads share the lanes": (1, 2, 64, 8, 8, "right"),
    "an odd number of heads": (2, 3, 64, 8, 6, "mixed"),
    "heads and blocks that are widened": (1, 2, 40, 12, 6, "left"),
    "three small heads": (2, 3, 8, 16, 7, "mixed"),
    "a head as wide as all lanes": (1, 1, 128, 8, 6, "none"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.quick("two heads share the lanes")
def test_context_and_gradients_are_those_of_float64(case):
    B, N, H, W, n, padding = CASES[case]
    random, values, mask = random_blocks(N, n), arrays(B, N, n * W, H), masked(B, n * W, padding)
    found = by_kernels(values, mask, key_lists(pattern_of(random)), W)
    worst = errors(found, reference(values, mask, multiplicity(random), W))
    assert max(worst.values()) < LIMIT, worst


SMALL = 2, 2, 16, 8, 6  # texts, heads, head size, block size, blocks


@pytest.mark.parametrize("padding", ["none", "right", "left", "mixed", "nothing"])
def test_padding_wherever_it_is(padding):
    """And what stands there changes nothing, bit for bit."""
    B, N, H, W, n = SMALL
    random, values, mask = random_blocks(N, n), arrays(B, N, n * W, H), masked(B, n * W, padding)
    lists = key_lists(pattern_of(random))
    found = by_kernels(values, mask, lists, W)
    worst = errors(found, reference(values, mask, multiplicity(random), W))
    assert max(worst.values()) < LIMIT, worst
    for x in values:
        x[~np.broadcast_to(mask[:, None], x.shape[:3])] = 1e4
    for a, b in zip(by_kernels(values, mask, lists, W), found, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not a[~np.broadcast_to(mask[:, None], a.shape[:3])].any()


@pytest.mark.parametrize("fault", ["another random block", "a repeated block that counts once", "another mask"])
def test_a_fault_is_seen(fault):
    """The negative control."""
    B, N, H, W, n = SMALL
    random, values, mask = random_blocks(N, n), arrays(B, N, n * W, H), masked(B, n * W, "right")
    lists, counts = key_lists(pattern_of(random)), multiplicity(random)
    if fault == "another random block":
        random[0, 1, 0] = 4 if random[0, 1, 0] == 3 else 3
        assert (multiplicity(random) != counts).sum() == 2
        counts = multiplicity(random)
    elif fault == "a repeated block that counts once":
        assert counts.max() > 1
        lists = lists._replace(counts=jnp.minimum(lists.counts, 1))
    expected = reference(values, mask, counts, W)
    found = by_kernels(values, masked(B, n * W, "left") if fault == "another mask" else mask, lists, W)
    worst = errors(found, expected)
    assert min(worst.values()) > 0.01, worst


def test_texts_of_mixed_lengths_in_one_row():
    """Packed, in lists of rounded sizes, some of which hold nothing."""
    _, N, H, W, n = SMALL
    random, ends = random_blocks(N, n), np.array([6, 1, 3, 2]) * W - 3
    packing = make_packing(np.arange(n * W) < ends[:, None], W)
    lists = key_lists(packed_pattern(pattern_of(random), packing), rounded=True)
    P = len(lists.places)
    assert P >= 12
    assert not lists.counts.any(axis=2).all()  # lists that hold nothing
    counts, mask = np.zeros((N, P, P), np.int64), np.zeros((1, P * W), bool)
    for text, end in zip(packing.texts, ends, strict=True):
        own = slice(text.first, text.first + text.blocks)
        counts[:, own, own] = multiplicity(random)[:, : text.blocks, : text.blocks]
        mask[0, text.first * W : text.first * W + end] = True
    values = arrays(1, N, P * W, H)
    rows = mask[0].reshape(P, W).any(axis=1)
    counts[:, ~rows] = np.eye(P, dtype=np.int64)[~rows]  # rows of no text: whatever they see, they get 0
    worst = errors(by_kernels(values, mask, lists, W), reference(values, mask, counts, W))
    assert max(worst.values()) < LIMIT, worst


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.quick("1")
def test_half_precision(at_once, monkeypatch):
    """As far off as 8 bits are."""
    monkeypatch.setattr(kernels, "LISTS_AT_ONCE", at_once)
    B, N, H, W, n = SMALL[0], SMALL[1], 8, SMALL[3], SMALL[4]
    random, mask = random_blocks(N, n), masked(B, n * W, "mixed")
    values = [jnp.asarray(x, jnp.bfloat16) for x in arrays(B, N, n * W, H)]
    found = by_kernels(values, mask, key_lists(pattern_of(random)), W)
    worst = errors(found, reference([np.asarray(x, np.float64) for x in values], mask, multiplicity(random), W))
    assert 1e-4 < max(worst.values()) < 0.05, worst


def program(how, dtype=jnp.float32, more=0):
    """What is traced of attention in some formulation; ``more``: how much wider values are than keys."""
    B, N, H, W, n = SMALL
    lists, mask = key_lists(pattern_of(random_blocks(N, n))), masked(B, n * W, "none")
    q, v = (jax.ShapeDtypeStruct((B, N, n * W, size), dtype) for size in (H, H + more))
    return str(jax.make_jaxpr(lambda q, k, v: block_sparse_attention(q, k, v, mask, lists, W, how))(q, q, v))


def test_kernels_run_where_the_formulation_says_so_and_they_can():
    assert "bigbird_forward" in program(ON_TPU)
    assert "bigbird_forward" not in program(replace(ON_TPU, kernels=False))
    assert "bigbird_forward" not in program(formulation("flax", "cpu"))
    assert "bigbird_forward" not in program(formulation("flax", "gpu"))
    assert "bigbird_forward" in program(ON_TPU, jnp.bfloat16)
    assert "bigbird_forward" not in program(ON_TPU, jnp.float16)
    assert "bigbird_forward" not in program(ON_TPU, more=8)


def test_a_process_without_a_tpu_traces_the_kernels_where_it_is_asked_to():
    assert "bigbird_forward" not in program(None)
    with with_kernels():
        assert "bigbird_forward" in program(None)
    assert "bigbird_forward" not in program(None)


def test_a_row_that_vmem_does_not_hold_is_gathered():
    """16384 tokens are held in bfloat16 on each TPU; the least that one has is 64 MiB."""
    for dtype, length, expected in (
        (jnp.bfloat16, 16384, True),
        (jnp.bfloat16, 32768, False),
        (jnp.float32, 8192, True),
        (jnp.float32, 16384, False),
    ):
        q = jax.ShapeDtypeStruct((1, 12, length, 64), dtype)
        assert kernels.fits(q, q) == expected
