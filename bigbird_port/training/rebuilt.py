"""Adafactor's factors of a kernel with three axes, or of a bias with two, as those of the matrix or vector it is here.

The factors are means of squares, and their product over the mean of one is Adafactor's own estimate of the squares.
Means of that estimate are what a run with the other layout would go on from; where they are means of means they are
exact.
"""

from __future__ import annotations

import numpy as np

from bigbird_port.schema.layout import Dims, split_shape
from bigbird_port.schema.slots import Slot, groups


def rebuilt(slot: Slot, rows: np.ndarray, columns: np.ndarray, sizes: Dims) -> np.ndarray:
    """Return a slot of a weight from its factors when each of its axes stands alone.

    rows: means over the last axis; columns: over the last but one. The result has the slot's canonical shape.
    """
    wide_rows, wide_columns = rows.astype(np.float64), columns.astype(np.float64)
    squares = wide_rows[..., None] * wide_columns[..., None, :]
    squares /= wide_rows.mean(axis=-1)[..., None, None]
    squares = squares.reshape(split_shape(slot.weight.axes, sizes))
    parts = [len(part.strip("()").split()) for part in groups(slot.weight.axes)]
    if slot.kind == "row":
        squares = squares.mean(axis=tuple(range(squares.ndim - parts[-1], squares.ndim)))
    elif slot.kind == "column":
        begin = sum(parts[:-2])
        squares = squares.mean(axis=tuple(range(begin, begin + parts[-2])))
    return squares.reshape(slot.shape(sizes)).astype(rows.dtype)
