"""The packed row of a batch: which blocks stand in it, and the pattern in its block numbers."""

from dataclasses import replace

import numpy as np
import pytest

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import FORMULATIONS, formulation
from bigbird_port.sparse.packing import Packing, make_packing, packed_pattern
from bigbird_port.sparse.pattern import layer_pattern

W = 16
CONFIG = BigBirdConfig(
    hidden_size=8, num_attention_heads=2, block_size=W, max_position_embeddings=1024, max_encoder_length=1024
)


def mask_of(lengths, padded):
    return np.arange(padded) < np.array(lengths)[:, None]


def test_blocks_up_to_the_last_real_token_are_kept_and_the_first_always():
    packing = make_packing(mask_of([33, 64, 0, 1], 70), W)  # 5 blocks a text
    assert packing.texts == ((0, 3), (3, 4), (7, 1), (8, 1))
    assert packing.blocks.dtype == np.int32
    assert packing.blocks.tolist() == [0, 1, 2, 5, 6, 7, 8, 10, 15]


def test_holes_are_no_padding():
    mask = np.zeros((2, 80), bool)
    mask[0, 63] = mask[1, 0] = True
    assert make_packing(mask, W).texts == ((0, 4), (4, 1))


@pytest.mark.parametrize("lengths", [[70, 65], [80, 80], [1], [16]])
def test_nothing_is_packed_where_nothing_would_be_skipped(lengths):
    assert make_packing(mask_of(lengths, max(lengths)), W) is None


def test_padding_of_a_single_text_is_skipped_and_numbers_are_a_mask_as_well():
    packing = make_packing(mask_of([20], 64).astype(np.int64), W)
    assert packing.texts == ((0, 2),)


def visible(pattern, first, blocks):
    """How often each query block of a text lists each of its key blocks, [N, blocks, blocks]; global ones once."""
    counts = np.zeros((len(pattern.key_blocks), blocks, blocks), int)
    for h, q, s in np.argwhere(pattern.live):
        if first <= pattern.rows[q] < first + blocks:
            counts[h, pattern.rows[q] - first, pattern.key_blocks[h, q, s] - first] += 1
    (own,) = (g for t, g in zip(pattern.texts, pattern.global_blocks(), strict=True) if t.first == first)
    counts[:, [i - first for i in own]] = 1
    return counts


def test_each_text_sees_in_the_packed_row_what_it_sees_alone():
    lengths = [1024, 1, 1008, 333, 1009, 17, 32, 512]  # with and without the pattern's last block
    whole, packing = layer_pattern(CONFIG, 1, 1024), make_packing(mask_of(lengths, 1024), W)
    packed = packed_pattern(whole, packing)
    assert packed.texts == packing.texts
    assert packed.key_blocks.dtype == packed.rows.dtype == np.int32
    for length, (first, blocks) in zip(lengths, packing.texts, strict=True):
        alone = layer_pattern(CONFIG, 1, length)
        assert alone.texts == ((0, blocks),)
        counts = visible(packed, first, blocks)
        np.testing.assert_array_equal(counts, visible(alone, 0, blocks))
        inside = (packed.rows >= first) & (packed.rows < first + blocks)  # placeholders too name the text's blocks
        assert ((packed.key_blocks[:, inside] >= first) & (packed.key_blocks[:, inside] < first + blocks)).all()


def test_a_packing_that_is_off_by_one_block_is_seen():
    """The negative control of the test above."""
    whole, packing = layer_pattern(CONFIG, 1, 1024), make_packing(mask_of([1024, 500], 1024), W)
    right = packed_pattern(whole, packing)
    shifted = Packing(packing.blocks, tuple(t._replace(first=t.first + 1) for t in packing.texts))
    wrong = replace(packed_pattern(whole, shifted), texts=packing.texts)
    for first, blocks in packing.texts[1:]:
        assert (visible(right, first, blocks + 1) != visible(wrong, first, blocks + 1)).any()


def test_global_query_blocks_are_those_without_a_list():
    assert layer_pattern(CONFIG, 0, 1024).global_blocks() == ((0, 63),)
    assert layer_pattern(CONFIG, 0, 1008).global_blocks() == ((0,),)
    assert layer_pattern(CONFIG, 0, 5).global_blocks() == ((0,),)


def test_a_device_without_a_formulation_runs_as_the_processor():
    assert formulation("torch", "cuda") is FORMULATIONS["torch", "cuda"]
    assert formulation("torch", "mps") is FORMULATIONS["torch", "cpu"]
    assert all(entry.measured for entry in FORMULATIONS.values())
