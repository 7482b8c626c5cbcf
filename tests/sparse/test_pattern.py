import warnings

import numpy as np
import pytest
from safetensors import safe_open

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse import pattern
from bigbird_port.sparse.pattern import NoPlanError, has_plan, key_lists, layer_pattern, pattern_blocks, rand_attn
from tests.conftest import CASES, GOLDEN, require


@pytest.mark.parametrize(("name", "case"), CASES)
def test_random_blocks_equal_the_originals(name, case):
    require(GOLDEN[name])
    with safe_open(case, "np") as file:
        metadata = file.metadata()
        golden = {key: file.get_tensor(key) for key in file.keys() if key.startswith("rand_attn.")}  # noqa: SIM118
    if metadata["effective_attention_type"] == "original_full":
        assert not golden
        return
    block = int(metadata["block_size"])
    n = int(metadata["effective_length"]) // block
    assert len(golden) >= 2
    for key, expected in golden.items():
        heads, rows, r = expected.shape
        assert rows == n - 2
        np.testing.assert_array_equal(rand_attn(heads, n, block, r, int(key.rpartition("_")[2])), expected)


def test_layers_and_heads_draw_differently():
    first, second = rand_attn(4, 64, 64, 3, seed=0), rand_attn(4, 64, 64, 3, seed=1)
    assert (first != second).any()
    assert all((first[0] != first[head]).any() for head in (1, 2, 3))


def test_a_paper_plan_is_the_head_of_the_longest():
    """The paper plan is drawn for 4096 tokens whatever the length, head after head, and then cut."""
    longest = rand_attn(3, 64, 64, 3, seed=5)
    for n in (16, 32, 48):
        np.testing.assert_array_equal(rand_attn(3, n, 64, 3, seed=5), longest[:, : n - 2])


def test_lengths_without_a_plan():
    """As the original: a shape error stops it at exactly these numbers of blocks."""
    assert [n for n in range(9, 65) if not has_plan(n, 64, 3)] == [9, 10, 11]
    assert [n for n in range(9, 65) if not has_plan(n, 64, 2)] == [9]
    assert [n for n in range(9, 65) if not has_plan(n, 64, 4)] == [10, 11, 12, 13]
    with pytest.raises(NoPlanError, match=r"length 640 \(block size 64, 3 random blocks\)"):
        rand_attn(2, 10, 64, 3, seed=0)


def test_blocks_of_512_have_no_paper_plan_that_fits():
    assert not has_plan(4, 512, 2)  # it would name blocks that are not there


def test_key_lists_keep_duplicates_and_spare_repeated_globals():
    n = 16
    random = rand_attn(2, n, 64, 3, seed=0)
    key_blocks, live = key_lists(random)
    assert key_blocks.shape == (2, n - 2, 8)
    np.testing.assert_array_equal(key_blocks[1, 4], [0, 4, 5, 6, 15, *random[1, 4]])
    dead = [tuple(int(i) for i in at) for at in np.argwhere(~live)]
    assert dead == [(h, q, s) for h in range(2) for q, s in ((0, 1), (n - 3, 3))]
    lists = [key_blocks[h, q][live[h, q]] for h in range(2) for q in range(n - 2)]
    repeated = sum(len(blocks) > len(set(blocks)) for blocks in lists)
    assert repeated > 0  # the paper plan picks the last or a window block again, and the list keeps it


def test_transformers_mode_is_all_zero_blocks_with_its_switch():
    config = BigBirdConfig(random_blocks="transformers")
    assert pattern_blocks(config, 704) is None  # up to (5 + 2r) blocks it attends fully
    assert pattern_blocks(config, 705) == 12
    assert not layer_pattern(config, 3, 2048).key_blocks[:, :, 5:].any()


@pytest.mark.parametrize(
    ("settings", "length", "blocks"),
    [
        ({}, 512, None),
        ({}, 1024, 16),
        ({}, 1000, 16),
        ({"max_encoder_length": 512}, 100, None),
        ({"max_encoder_length": 1000}, 100, 16),
        ({"max_encoder_length": 4096}, 4096, 64),
        ({"attention_type": "original_full"}, 4096, None),
    ],
)
def test_which_attention_runs(settings, length, blocks):
    assert pattern_blocks(BigBirdConfig(**settings), length) == blocks


def test_a_length_without_plan_runs_full_attention_and_says_so_once():
    pattern._warn_no_plan.cache_clear()
    with pytest.warns(UserWarning, match="length 640 .*full attention runs instead.*512 below, 768 above"):
        assert pattern_blocks(BigBirdConfig(), 640) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pattern_blocks(BigBirdConfig(), 640) is None


def test_inputs_longer_than_the_pattern_are_refused_with_the_override():
    with pytest.raises(ValueError, match=r"1100 tokens.*max_encoder_length=1024.*max_encoder_length=1100"):
        pattern_blocks(BigBirdConfig(max_encoder_length=1024), 1100)


def test_a_short_batch_uses_the_rows_of_the_configured_length():
    """The pattern depends on the configured length, never on how long the batch happens to be."""
    whole = layer_pattern(BigBirdConfig(max_encoder_length=2048), 1, 2048)
    short = layer_pattern(BigBirdConfig(max_encoder_length=2048), 1, 600)
    assert short.key_blocks.shape[1] == 9  # blocks 1 .. 9 of 10 are there, the last global block is not
    inside = whole.key_blocks[:, :9] < 10
    np.testing.assert_array_equal(short.live, whole.live[:, :9] & inside)
    np.testing.assert_array_equal(short.key_blocks[short.live], whole.key_blocks[:, :9][short.live])


def test_nothing_depends_on_global_random_state():
    np.random.seed(1)
    first = rand_attn(2, 12, 64, 3, seed=2)
    np.random.seed(2)
    np.testing.assert_array_equal(rand_attn(2, 12, 64, 3, seed=2), first)


def test_cached_patterns_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        layer_pattern(BigBirdConfig(), 0, 1024).key_blocks[0, 0, 0] = 5
