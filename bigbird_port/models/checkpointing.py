"""What layers that are computed again in the backward pass do not offer."""

from __future__ import annotations

from typing import Any


def refuse_partial_checkpointing(every_n_layers: int, offload: Any) -> None:
    """Raise ValueError for every_n_layers other than 1, and for offload: all layers are computed again, in place."""
    for name, value in (("every_n_layers", every_n_layers != 1 and every_n_layers), ("offload", offload)):
        if value:
            raise ValueError(f"{name} is {value}, but every layer is computed again, where it is: leave it out")
