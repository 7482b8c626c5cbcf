"""What the variables of a checkpoint tell of its configuration, where no file does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_FIELDS = {
    "vocab": "vocab_size",
    "position": "max_position_embeddings",
    "type": "type_vocab_size",
    "hidden": "hidden_size",
    "inner": "intermediate_size",
    "heads": "num_attention_heads",
    "label": "num_labels",
}


def infer(sizes: Mapping[str, int], layers: int, held: Collection[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are told.

    Sizes, number of layers, use_bias and, where kernels are 3-D, the number of attention heads; num_labels and
    classifier_style if the original's classifier is there. sizes: of axes of the schema. held: canonical names.
    told: the conditions of their rows.
    """
    settings: dict[str, Any] = {field: sizes[axis] for axis, field in _FIELDS.items() if axis in sizes}
    settings["num_hidden_layers"] = layers
    settings["use_bias"] = "encoder.layer.0.attention.self.query.bias" in held
    if "norm_type" in told:
        settings["norm_type"] = told["norm_type"]
    if "label" in sizes:
        settings["classifier_style"] = "original"
    return settings
