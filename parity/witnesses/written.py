"""What a witness writes.

Legend: B batch, T tokens that are written, M beams.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Written(NamedTuple):
    """ids: [B, T] greedily, [B, M, T] by a search, whose scores are [B, M].

    margins: of the reference, by how much what was chosen led: in logits [B, T] greedily, in log-probabilities per
    token [B] of a search. None of the others.
    """

    ids: np.ndarray
    scores: np.ndarray | None = None
    margins: np.ndarray | None = None
