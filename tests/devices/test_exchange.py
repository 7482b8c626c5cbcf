"""What devices exchange: every list in a device's own numbers names the blocks that the pattern names."""

import numpy as np
import pytest

from bigbird_port.devices.exchange import make_exchange
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import Pattern, Text, layer_pattern

SMALL = BigBirdConfig(
    hidden_size=32, num_attention_heads=4, max_position_embeddings=2048, block_size=16, num_random_blocks=3
)


def numbers_at_hand(exchange, device):
    """Which block stands at each local number of a device; -1 where a neighbour is missing."""
    s, _, b, _ = exchange.key_blocks.shape
    own = np.arange(device * b, (device + 1) * b)
    before, behind = own[0] - 1, own[-1] + 1 if device < s - 1 else -1
    return np.concatenate((own, [before, behind], exchange.shared))


def listed(exchange):
    """Block numbers and liveness of every query block's list, [N, s b, S]."""
    found = [numbers_at_hand(exchange, d)[lists] for d, lists in enumerate(exchange.key_blocks)]
    return np.concatenate(found, axis=1), np.concatenate(list(exchange.live), axis=1)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize(("configured", "length"), [(1024, 1024), (1024, 777), (1200, 1200), (2048, 600)])
def test_lists_are_the_patterns(configured, length, devices):
    pattern = layer_pattern(SMALL.replace(max_encoder_length=configured), 1, length)
    blocks = -(-length // 16)
    exchange = make_exchange(pattern, blocks, devices)
    found, live = listed(exchange)
    Q = pattern.key_blocks.shape[1]
    np.testing.assert_array_equal(live[:, 1 : Q + 1], pattern.live)
    np.testing.assert_array_equal(found[:, 1 : Q + 1][pattern.live], pattern.key_blocks[pattern.live])
    assert not live[:, 0].any()  # the global blocks, and what pads the last device, have no list
    assert not live[:, Q + 1 :].any()
    assert exchange.global_blocks.tolist() == [0] + [Q + 1] * (blocks > Q + 1)
    if devices == 1:
        assert not len(exchange.shared)


def test_a_block_that_stands_twice_is_shared_once_and_listed_twice():
    key_blocks = np.array([[[0, 0, 1, 2, 7, 6, 6]] + [[0, i - 1, i, i + 1, 7, 3, 3] for i in range(2, 7)]], np.int32)
    live = np.ones(key_blocks.shape, bool)
    exchange = make_exchange(Pattern(key_blocks, live, np.arange(1, 7, dtype=np.int32), (Text(0, 8),)), 8, 4)
    assert exchange.shared.tolist() == [0, 3, 6, 7]
    found, _ = listed(exchange)
    assert found[0, 1, -2:].tolist() == [6, 6]


def test_dead_slots_bring_no_block():
    pattern = layer_pattern(SMALL.replace(max_encoder_length=2048), 0, 600)  # the last block is not there
    exchange = make_exchange(pattern, 38, 2)
    assert exchange.shared.max() < 38


@pytest.mark.parametrize(("length", "most"), [(4096, 15 + 2), (8192, 2 * 3 + 3 + 2), (32768, 2 * 3 + 3 + 2)])
def test_what_is_shared_does_not_grow_with_the_text(length, most):
    """Random blocks come from the first 15 blocks in the paper's plan, and from the first 2r + 3 in the general one."""
    config = BigBirdConfig(max_encoder_length=length, max_position_embeddings=length)
    for layer in (0, 11):
        shared = make_exchange(layer_pattern(config, layer, length), length // 64, 8).shared
        assert len(shared) <= most
        assert set(shared[1:-1]) <= set(range(1, most - 1))
