"""Lists of key blocks on the device.

Legend: N heads, Q query blocks with a key list of their own, S slots in such a list.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bigbird_port.sparse.pattern import Pattern, Text, fold_repeats


class KeyLists(NamedTuple):
    """A Pattern on the device: key_blocks int64 [N, Q, S], counts int32 [N, Q, S], and its texts on the host.

    counts: how often each key block counts. global_blocks: each text's query blocks without a list.
    """

    key_blocks: Tensor
    counts: Tensor
    texts: tuple[Text, ...]
    global_blocks: tuple[tuple[int, ...], ...]


def key_lists(pattern: Pattern | None, device: torch.device) -> KeyLists | None:
    """Move a pattern to a device; None (full attention) stays None."""
    if pattern is None:
        return None
    folded = fold_repeats(pattern)
    return KeyLists(
        torch.as_tensor(folded.key_blocks.astype("int64"), device=device),
        torch.as_tensor(folded.live, device=device),
        folded.texts,
        folded.global_blocks(),
    )
