"""How large a configuration may say that a model is: what no model has ends no loop and fits no memory."""

from __future__ import annotations

from collections.abc import Iterable

# Far above every model that is known: BigBird large has 24 layers, 16 heads and 50 358 words.
LARGEST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 16,
    "intermediate_size": 1 << 22,
    "max_position_embeddings": 1 << 24,
    "type_vocab_size": 1 << 20,
    "block_size": 1 << 24,
    "num_random_blocks": 1 << 16,
    "num_labels": 1 << 16,  # each has a name
}
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
