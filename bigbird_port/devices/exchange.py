"""Block-sparse attention over several devices: which key blocks a device gets from the others.

A device holds b successive blocks. Its query blocks also need

* the last block of the device before, and the first block of the device behind, because windows reach over;
* blocks from anywhere: the global blocks and the random ones. These are few. The original draws random blocks from
  blocks 1 to 15 of a text (paper plan) or 1 to 2r + 3 (general plan), whatever the length of the text.

So every device gets a copy of all global and random blocks, and what is exchanged does not grow with the text.

Legend: s devices, b blocks on each, n blocks in the sequence, N heads, Q query blocks with a list of their own, S slots
in such a list, G shared blocks.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from bigbird_port.sparse.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Exchange:
    """A Pattern for s devices of b blocks each.

    key_blocks: int32 [s, N, b, S], the lists of each device's query blocks. A device numbers the blocks that it sees:
        0 .. b-1 are its own, b is the last block of the device before, b+1 the first block of the device behind, and
        b+2+g is shared block g.
    live: bool [s, N, b, S], False for slots that do not count. Global query blocks have no live slot.
    shared: int32 [G], the blocks of which every device gets a copy.
    global_blocks: int32 [1 or 2], the query blocks that attend to all keys.
    """

    key_blocks: np.ndarray
    live: np.ndarray
    shared: np.ndarray
    global_blocks: np.ndarray

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return len(self.key_blocks)


@functools.lru_cache(maxsize=256)
def make_exchange(pattern: Pattern, blocks: int, devices: int) -> Exchange:
    """Spread the pattern of a batch of n = ``blocks`` blocks over ``devices``; the last devices are padded."""
    N, Q, S = pattern.key_blocks.shape
    b = -(-blocks // devices)
    owner_Q = np.arange(1, Q + 1) // b
    device = owner_Q[:, None]
    own = pattern.key_blocks // b == device
    before, behind = pattern.key_blocks == device * b - 1, pattern.key_blocks == (device + 1) * b
    away = pattern.live & ~own & ~before & ~behind
    shared = np.unique(pattern.key_blocks[away])
    numbers = np.select(
        (own, before, behind),
        (pattern.key_blocks - device * b, b, b + 1),
        b + 2 + np.searchsorted(shared, pattern.key_blocks),
    )
    key_blocks, live = np.zeros((N, devices * b, S), np.int32), np.zeros((N, devices * b, S), bool)
    key_blocks[:, 1 : Q + 1] = np.where(pattern.live, numbers, 0)
    live[:, 1 : Q + 1] = pattern.live
    own_lists, own_live = (x.reshape(N, devices, b, S).swapaxes(0, 1) for x in (key_blocks, live))
    global_blocks = np.array([block for block in (0, Q + 1) if block < blocks], np.int32)
    return Exchange(own_lists, own_live, shared.astype(np.int32), global_blocks)
