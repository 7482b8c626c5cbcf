"""A batch without its padded blocks (Flax) is the batch with them: hidden states, gradients, key lists, shapes."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import models_flax
import models_flax.bigbird.encoder
import models_flax.bigbird.inputs
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import FORMULATIONS
from bigbird_port.sparse.packing import Packing, make_packing
from bigbird_port.sparse.pattern import layer_pattern
from models_flax.attention.block_sparse import block_sparse_attention
from models_flax.attention.lists import key_lists

LIMIT = 2e-6  # of the largest magnitude
CONFIG = BigBirdConfig(
    vocab_size=90,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=1024,
    max_encoder_length=1024,
    block_size=16,
    initializer_range=0.3,
    sep_token_id=3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
LENGTH = 600  # not a multiple of the block


def batch(lengths=(600, 1, 333), holes=True):
    """Ids and mask: a full text, one of one token, and one with a hole in its mask."""
    rng = np.random.default_rng(0)
    mask = np.arange(LENGTH) < np.array(lengths)[:, None]
    if holes:
        mask[-1, 40:75] = False
    return rng.integers(4, 90, mask.shape), mask


def model(skip_padding, config=CONFIG):
    return models_flax.FlaxBigBirdModel(config, seed=2, skip_padding=skip_padding)


def states(ids, mask, skip_padding, config=CONFIG, **options):
    with jax.default_matmul_precision("highest"):
        return model(skip_padding, config)(ids, mask, **options)


def assert_equal_on_tokens(found, expected, mask):
    found, expected = np.asarray(found), np.asarray(expected)
    assert np.isfinite(found).all()
    assert np.abs(found - expected)[mask].max() < LIMIT * np.abs(expected).max()


@pytest.mark.parametrize("random_blocks", ["original", "transformers"])
def test_packed_equals_padded_on_real_tokens(random_blocks):
    (ids, mask), config = batch(), CONFIG.replace(random_blocks=random_blocks)
    packed, padded = (states(ids, mask, skip, config, output_hidden_states=True) for skip in (True, False))
    for found, expected in zip(packed.hidden_states, padded.hidden_states, strict=True):
        assert_equal_on_tokens(found, expected, mask)
    assert_equal_on_tokens(packed.pooler_output, padded.pooler_output, np.ones(3, bool))
    assert not np.asarray(packed.last_hidden_state)[1, 16:].any()  # skipped
    assert np.asarray(padded.last_hidden_state)[1, 16:].any()


def test_packed_gradients_equal_padded_ones():
    """In float64, to its rounding: the gradient of a key's bias is nothing else, which float32 would not tell."""
    ids, mask = batch()
    weight = np.random.default_rng(1).standard_normal((*mask.shape, 16)) * mask[:, :, None]

    def gradients(skip_padding):
        ours = models_flax.FlaxBigBirdModel(CONFIG, seed=2, dtype=np.float64, skip_padding=skip_padding)

        def loss(params):
            return (ours(ids, mask, params=params).last_hidden_state * weight).sum()

        with jax.default_matmul_precision("highest"):
            return jax.jit(jax.grad(loss))(jax.tree.map(np.float64, ours.params))

    with jax.enable_x64(True):
        packed, padded = gradients(True), gradients(False)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(padded))
    assert largest > 1
    for (path, found), expected in zip(jax.tree.leaves_with_path(packed), jax.tree.leaves(padded), strict=True):
        assert found.dtype == np.float64, path
        assert np.abs(found - expected).max() < 1e-12 * largest, path


def test_a_packing_that_is_off_by_one_block_is_seen(monkeypatch):
    """The negative control."""
    (ids, mask), right = batch(), make_packing

    def shifted(mask_BL, block_size):
        packing = right(mask_BL, block_size)
        return Packing(np.append(packing.blocks[1:], 0).astype(np.int32), packing.texts)

    expected = np.asarray(states(ids, mask, False).last_hidden_state)
    monkeypatch.setattr(models_flax.bigbird.inputs, "make_packing", shifted)
    found = np.asarray(states(ids, mask, True).last_hidden_state)
    assert np.abs(found - expected)[mask].max() > 0.1


@pytest.fixture
def rows(monkeypatch):
    """Blocks of the rows that were packed, P of each."""
    made, right = [], models_flax.bigbird.encoder._row_of

    def noted(*arguments):
        row = right(*arguments)
        made.append(len(row.blocks))
        return row

    monkeypatch.setattr(models_flax.bigbird.encoder, "_row_of", noted)
    return made


def test_nothing_is_skipped_where_it_must_not_be(rows):
    (ids, mask), ours = batch(), model(True)
    jax.eval_shape(lambda: ours(ids, mask, output_taps=True))
    jax.eval_shape(lambda: ours(ids, mask, output_attentions=True))
    jax.eval_shape(lambda m: ours(ids, m), mask)  # a mask that is not known
    jax.eval_shape(lambda: ours(ids, np.ones_like(mask)))
    jax.eval_shape(lambda: model(False)(ids, mask))
    full = model(True, CONFIG.replace(attention_type="original_full"))
    jax.eval_shape(lambda: full(ids, mask))
    assert rows == []


def test_a_known_mask_is_packed_inside_compiled_code_and_the_padding_of_ids_is_a_mask(rows):
    (ids, mask), ours = batch(holes=False), model(True)
    jax.eval_shape(lambda i: ours(i, mask), ids)
    jax.eval_shape(lambda: ours(np.where(mask, ids, 0)))
    jax.eval_shape(lambda: ours.module.apply({"params": ours.params}, ids, mask))
    assert rows == [60, 60, 60]  # 38 + 1 + 21 blocks


def test_lengths_that_are_nearly_alike_are_compiled_once():
    """The same shapes whatever the lengths, if these are packed into rows of one size."""

    def shapes(lengths):
        _, mask = batch(lengths, holes=False)
        packing = make_packing(mask, 16)
        lists = models_flax.bigbird.encoder.encoder_lists(CONFIG, 0, LENGTH, packing)
        row = models_flax.bigbird.encoder._row_of(packing, mask.shape, 16)
        return jax.tree.map(np.shape, (lists, row.blocks, row.places))

    assert shapes((600, 1, 333)) == shapes((590, 32, 325))
    assert shapes((600, 1, 333)) != shapes((600, 1, 1))


@pytest.mark.parametrize("device", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.quick("float32-cpu", "bfloat16-gpu", "float32-tpu")
def test_every_formulation_computes_the_same(device, dtype):
    """Those of other devices run here too, on an ordinary pattern with both global blocks and padding.

    Kernels have tests of their own (test_flax_kernels.py).
    """
    rng, how = np.random.default_rng(0), replace(FORMULATIONS["flax", device], kernels=False)
    q, k, v = (jax.numpy.asarray(rng.standard_normal((2, 2, 1024, 8)), dtype) for _ in range(3))
    mask, lists = np.arange(1024) < np.array([[1024], [700]]), key_lists(layer_pattern(CONFIG, 1, 1024))
    one_by_one = replace(how, heads_at_once=1, blocks_at_once=1)
    with jax.default_matmul_precision("highest"):
        found, expected = (
            np.asarray(block_sparse_attention(q, k, v, mask, lists, 16, way), np.float32) for way in (how, one_by_one)
        )
    assert str(q.dtype) == dtype
    assert np.abs(expected).max() > 0.5
    assert np.abs(found - expected).max() < (2e-6 if dtype == "float32" else 2e-2)


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_no_device_waits_for_the_host_inside_a_layer(device, monkeypatch):
    """The compiled program has no call to the host."""
    (ids, mask), ours = batch(), model(True)
    monkeypatch.setitem(FORMULATIONS, ("flax", "cpu"), FORMULATIONS["flax", device])
    text = jax.jit(lambda p, i: ours(i, mask, params=p).last_hidden_state).lower(ours.params, ids).as_text()
    assert "stablehlo.dot_general" in text
    assert not [word for word in ("callback", "infeed", "outfeed", "stablehlo.send") if word in text]
