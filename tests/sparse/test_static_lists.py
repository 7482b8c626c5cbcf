"""A pattern as arrays of few shapes, against the pattern itself; and repeats that count as often as they stand."""

import numpy as np
import pytest

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.packing import make_packing, packed_pattern
from bigbird_port.sparse.pattern import fold_repeats, layer_pattern
from bigbird_port.sparse.static_lists import round_up, static_lists

W = 16
SETTINGS = {"hidden_size": 8, "num_attention_heads": 2, "block_size": W, "max_position_embeddings": 1024}


def config_for(**settings):
    return BigBirdConfig(**SETTINGS, max_encoder_length=1024, **settings)


def weights_of_pattern(pattern):
    """How often each query block of the row weighs each key block, [N, P, P]."""
    P = sum(text.blocks for text in pattern.texts)
    weights = np.zeros((len(pattern.key_blocks), P, P), int)
    for h, q, s in np.ndindex(pattern.live.shape):
        weights[h, pattern.rows[q], pattern.key_blocks[h, q, s]] += int(pattern.live[h, q, s])
    for (first, blocks), own in zip(pattern.texts, pattern.global_blocks(), strict=True):
        weights[:, list(own), first : first + blocks] = 1
    return weights


def weights_of_lists(lists, P):
    """The same by way of ``places``: whose list, or whose parts, is each block's."""
    Q = len(lists.rows)
    weights = np.zeros((len(lists.counts), P, P), int)
    for block in range(P):
        place = lists.places[block]
        own = [place] if place < Q else Q + np.flatnonzero(lists.parts == place - Q)
        assert (lists.rows[place] if place < Q else lists.global_blocks[place - Q]) == block
        for h, t, s in np.ndindex(len(weights), len(own), lists.counts.shape[2]):
            weights[h, block, lists.key_blocks[h, own[t], s]] += lists.counts[h, own[t], s]
    return weights


def patterns():
    for random_blocks in ("original", "transformers"):
        for length in (1024, 1009, 500, 17, 5):
            pattern = layer_pattern(config_for(random_blocks=random_blocks), 1, length)
            yield f"{random_blocks} {length}", pattern, False
        whole = layer_pattern(config_for(random_blocks=random_blocks), 1, 1024)
        mask = np.arange(1024) < np.array([1024, 1, 700, 16, 1010])[:, None]
        yield f"{random_blocks} packed", packed_pattern(whole, make_packing(mask, W)), True
        yield f"{random_blocks} folded first", packed_pattern(fold_repeats(whole), make_packing(mask, W)), True


@pytest.mark.parametrize(("pattern", "rounded"), [pytest.param(*case, id=name) for name, *case in patterns()])
def test_lists_weigh_what_the_pattern_weighs(pattern, rounded):
    expected, lists = weights_of_pattern(pattern), static_lists(fold_repeats(pattern), rounded)
    np.testing.assert_array_equal(weights_of_lists(lists, len(expected[0])), expected)
    assert all(array.dtype == np.int32 for array in lists)
    assert (np.diff(lists.parts) >= 0).all()
    assert set(lists.parts) == set(range(len(lists.global_blocks)))  # an empty sum would be 0 / 0
    assert lists.key_blocks.min() >= 0
    assert lists.key_blocks.max() < len(expected[0])


def test_a_repeat_that_is_counted_once_is_seen():
    """The negative control: the paper's plan repeats blocks."""
    pattern = layer_pattern(config_for(), 0, 1024)
    lists = static_lists(fold_repeats(pattern))
    once = lists._replace(counts=np.minimum(lists.counts, 1))
    assert (weights_of_lists(once, 64) != weights_of_pattern(pattern)).any()


def test_transformers_blocks_need_five_slots_and_what_counts_nothing_names_a_block_of_the_list():
    folded = fold_repeats(layer_pattern(config_for(random_blocks="transformers"), 0, 1024))
    assert folded.key_blocks.shape == (2, 62, 5)
    assert fold_repeats(folded) is folded
    cropped = fold_repeats(layer_pattern(config_for(), 0, 500))
    for blocks, counts in zip(*(np.concatenate(x) for x in (cropped.key_blocks, cropped.live)), strict=True):
        assert set(blocks[counts == 0]) <= set(blocks[counts > 0])
        assert len(set(blocks[counts > 0])) == (counts > 0).sum()


def test_rounded_sizes_are_few_and_a_sixteenth_larger_at_most():
    sizes = {round_up(size) for size in range(1, 4097)}
    assert len(sizes) < 16 * 12
    assert all(size <= round_up(size) <= size * 1.0625 for size in range(1, 4097))
    assert round_up(77, rounded=False) == 77
    many = {tuple(x.shape for x in static_lists(mixed(seed), rounded=True)) for seed in range(20)}
    assert len(many) <= 10  # P takes 4 sizes here, and E 2 or 3 for each


def mixed(seed):
    whole = layer_pattern(config_for(), 0, 1024)
    lengths = np.random.default_rng(seed).integers(700, 900, (4, 1))
    return packed_pattern(fold_repeats(whole), make_packing(np.arange(1024) < lengths, W))
