"""With max_encoder_length set, a text's hidden states do not depend on what it is batched with, nor on its padding."""

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig

LIMIT = 2e-6  # times the largest magnitude: matrix products of other shapes add up in another order
PATTERN = 1024
CONFIG = BigBirdConfig(
    vocab_size=90,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=PATTERN,
    block_size=16,
    initializer_range=0.3,
    sep_token_id=3,
    max_encoder_length=PATTERN,
)
BOTH = pytest.mark.parametrize("framework", ["torch", "flax"])


def runner(framework, config):
    """Ids and mask -> last hidden states."""
    if framework == "torch":
        torch_model = models_torch.BigBirdModel.from_config(config, seed=2)

        def run_torch(ids, mask):
            with torch.no_grad():
                return torch_model(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()

        return run_torch
    flax_model = models_flax.FlaxBigBirdModel.from_config(config, seed=2)

    def run_flax(ids, mask):
        with jax.default_matmul_precision("highest"):
            return np.asarray(flax_model(ids, mask).last_hidden_state)

    return run_flax


def batch(texts, length, filler=0):
    """Texts padded with ``filler`` to one length, and their mask."""
    ids = np.full((len(texts), length), filler)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return ids, np.arange(length) < np.array([len(text) for text in texts])[:, None]


def texts_of(seed, lengths):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 90, length) for length in lengths]


# All lengths end inside a block or at its end, in the window of the last block or far from it.
BATCHES = [([700, 33], 704), ([1009, 1009], 1024)]


@pytest.mark.parametrize(
    ("framework", "lengths", "padded"),
    [("torch", *case) for case in (*BATCHES, ([1024, 16, 512], 1024), ([100, 95], 112), ([600], 1000))]
    + [("flax", *BATCHES[0])],  # each shape is compiled
    ids=str,
)
def test_a_text_alone_and_in_a_batch_is_the_same(framework, lengths, padded):
    run, texts = runner(framework, CONFIG), texts_of(0, lengths)
    together = run(*batch(texts, padded))
    for text, found in zip(texts, together, strict=True):
        alone = run(*batch([text], len(text)))[0]
        assert np.abs(found[: len(text)] - alone).max() < LIMIT * np.abs(alone).max()


@BOTH
def test_neighbours_and_what_stands_in_padding_change_no_bit(framework):
    """Where shapes are equal, nothing may differ."""
    run, (text, *others) = runner(framework, CONFIG), texts_of(1, [530, 700, 20])
    first = run(*batch([text, others[0]], 704))[0, :530]
    np.testing.assert_array_equal(first, run(*batch([text, others[1]], 704))[0, :530])
    np.testing.assert_array_equal(first, run(*batch([text, others[1]], 704, filler=7))[0, :530])
    np.testing.assert_array_equal(first, run(*batch([others[0], text], 704))[1, :530])


@BOTH
def test_a_pattern_of_the_batchs_own_length_depends_on_the_batch(framework):
    """The negative control: without max_encoder_length, as transformers does, padding chooses the random blocks."""
    run, (text,) = runner(framework, CONFIG.replace(max_encoder_length=None)), texts_of(2, [800])
    alone, padded = run(*batch([text], 800))[0], run(*batch([text], 960))[0, :800]
    assert np.abs(alone - padded).max() > 1e-2 * np.abs(alone).max()


@BOTH
def test_padded_positions_hold_nothing_of_the_text(framework):
    """Under block-sparse attention they attend to nothing: finite, and the same whatever the text says."""
    run = runner(framework, CONFIG)
    first, second = (run(*batch(texts_of(seed, [530]), 704))[0] for seed in (3, 4))
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first[530:], second[530:])
    assert np.abs(first[:530] - second[:530]).max() > 0.1
