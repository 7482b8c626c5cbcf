"""The layers that the names of a source show, against those of a configuration."""

from __future__ import annotations

from collections.abc import Iterable

_TOLD_ONE_BY_ONE = 48  # layers that lack: their weights are named where the weights are matched


def check_layers(numbers: Iterable[int | None], layers: int) -> None:
    """Raise ValueError if a configuration has many more layers than the names of weights show.

    numbers: the layer of each weight, counted from 0; None for one outside of the layers.
    """
    held = 1 + max((number for number in numbers if number is not None), default=-1)
    if layers > held + _TOLD_ONE_BY_ONE:
        raise ValueError(
            f"the configuration has {layers} layers (num_hidden_layers), but the weights are those of {held}: give the "
            "configuration that belongs to them (--config FILE)"
        )
