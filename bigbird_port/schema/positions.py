"""More position embeddings than a model was trained with.

Legend: P present positions, L wanted positions, D hidden.
"""

from __future__ import annotations

import re

import numpy as np

METHODS = ("tile", "interpolate")


def extend_positions(table_PD: np.ndarray, length: int, method: str = "tile") -> np.ndarray:
    """Return ``length`` position embeddings made from P, as [L, D] of the table's dtype.

    method "tile" repeats the table: position p has the embedding of position p mod P. Longformer was made from RoBERTa
    in this way (Beltagy et al. 2020, section 5). method "interpolate" stretches the table, linear between neighbours;
    the first and the last row stay first and last. Neither result is trained, so fine-tune the model. Raises ValueError
    for a shorter length or an unknown method.
    """
    P = len(table_PD)
    check_extension(P, length, method)
    if method == "tile" or length == P:
        return table_PD[np.arange(length) % P]
    at_L = np.linspace(0, P - 1, length)
    low_L = np.minimum(at_L.astype(int), max(P - 2, 0))
    share_L1 = (at_L - low_L)[:, None]
    values_PD = table_PD.astype(np.float64)
    stretched_LD = (1 - share_L1) * values_PD[low_L] + share_L1 * values_PD[np.minimum(low_L + 1, P - 1)]
    return stretched_LD.astype(table_PD.dtype)


def check_extension(present: int, length: int, method: str) -> None:
    """Raise ValueError unless ``present`` positions can become ``length`` by ``method``."""
    if method not in METHODS:
        raise ValueError(f"positions: the method is {method!r}, expected one of {', '.join(METHODS)}")
    if length < present:
        raise ValueError(
            f"positions: max_position_embeddings is {length}, but there are {present} already: give at least {present} "
            "(shorter inputs need no shorter table)"
        )


def how_extended(method: str, present: int) -> str:
    """Return what a manifest says of a table that was extended from ``present`` positions."""
    return f"extended: {method} from {present}"


def read_how(how: str) -> tuple[str, int] | None:
    """Return the method and the former number of positions from what how_extended wrote; None for anything else."""
    found = re.fullmatch(rf"extended: ({'|'.join(METHODS)}) from ([1-9][0-9]*)", how)
    return (found[1], int(found[2])) if found else None
