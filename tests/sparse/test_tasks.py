"""A pattern as tasks of like size: the same meetings, over query blocks and over key blocks."""

from collections import Counter

import numpy as np
import pytest

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.packing import make_packing, packed_pattern
from bigbird_port.sparse.pattern import fold_repeats, layer_pattern
from bigbird_port.sparse.tasks import tasks_of

CONFIG = BigBirdConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=4096, block_size=16)


def patterns():
    for settings in ({}, {"random_blocks": "transformers"}, {"num_random_blocks": 5}):
        whole = fold_repeats(layer_pattern(CONFIG.replace(**settings), 1, 1024))
        yield whole
        mask = np.arange(1024) < np.array([1024, 300, 1, 0])[:, None]
        yield packed_pattern(whole, make_packing(mask, 16))


def meetings(pattern):
    """Head, query block, key block -> how often it counts."""
    found = Counter()
    for h, q, s in np.argwhere(pattern.live):
        found[h, int(pattern.rows[q]), int(pattern.key_blocks[h, q, s])] += int(pattern.live[h, q, s])
    for text, own in zip(pattern.texts, pattern.global_blocks(), strict=True):
        keys = range(text.first, text.first + text.blocks)
        found.update((h, i, j) for h in range(len(pattern.live)) for i in own for j in keys)
    return found


@pytest.mark.parametrize("over_keys", [False, True], ids=["queries", "keys"])
@pytest.mark.parametrize("pattern", list(patterns()), ids=range(6))
def test_tasks_are_the_patterns_meetings(pattern, over_keys):
    tasks, found = tasks_of(pattern, over_keys), Counter()
    for h, t, s in np.argwhere(tasks.counts):
        pair = int(tasks.rows[h, t]), int(tasks.blocks[h, t, s])
        found[(h, *(pair[::-1] if over_keys else pair))] += int(tasks.counts[h, t, s])
    assert found == meetings(pattern)
    assert len(found) > 100


@pytest.mark.parametrize("over_keys", [False, True], ids=["queries", "keys"])
@pytest.mark.parametrize("pattern", list(patterns()), ids=range(6))
def test_every_block_has_one_task_or_parts_and_a_place(pattern, over_keys):
    tasks = tasks_of(pattern, over_keys)
    E, (N, P), T = tasks.part_tasks, tasks.places.shape, tasks.rows.shape[1]
    live = tasks.counts.any(axis=2)
    for h in range(N):
        whole = tasks.rows[h, E:][live[h, E:]].tolist()
        owners = [x for x in tasks.owners[h].tolist() if x >= 0]
        assert sorted(whole + owners) == list(range(P))
        for block, place in enumerate(tasks.places[h]):
            found = tasks.rows[h, E + place] if place < T - E else tasks.owners[h, place - (T - E)]
            assert found == block
        for owner, parts in zip(tasks.owners[h], tasks.parts[h], strict=True):
            assert set(tasks.rows[h, parts[parts >= 0]].tolist()) <= {owner}
        assert sorted(tasks.parts[h][tasks.parts[h] >= 0]) == [t for t in range(E) if live[h, t]]
    assert T <= 2 * P  # the point of parts: tasks are of like size, and not many more than blocks
    assert over_keys or (tasks.rows == tasks.rows[0]).all()  # which batched.py relies on
