"""What the variables of a checkpoint tell of its configuration, where no file does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_FIELDS = {
    "vocab": "vocab_size",
    "position": "max_position_embeddings",
    "hidden": "d_model",
    "inner": "encoder_ffn_dim",
    "decoder_inner": "decoder_ffn_dim",
    "label": "num_labels",
}


def infer(sizes: Mapping[str, int], layers: int, held: Collection[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are told.

    Sizes, the layers of both sides, use_bias, norm_type, whether the decoder is the encoder's own layers, and the
    number of attention heads where the sizes tell it. sizes: of axes of the schema. held: canonical names. told: the
    conditions of their rows.
    """
    settings: dict[str, Any] = {field: sizes[axis] for axis, field in _FIELDS.items() if axis in sizes}
    if "heads" in sizes:
        settings |= {f"{side}_attention_heads": sizes["heads"] for side in ("encoder", "decoder")}
    coupled = told.get("couple_encoder_decoder", False)
    settings |= {field: told[field] for field in ("norm_type", "couple_encoder_decoder") if field in told}
    settings["encoder_layers"] = _layers(held, "encoder")
    settings["decoder_layers"] = _layers(held, "decoder") or settings["encoder_layers"]
    settings["use_bias"] = "encoder.layer.0.attention.self.query.bias" in held
    if coupled and "inner" in sizes:
        settings["decoder_ffn_dim"] = sizes["inner"]
    return settings


def _layers(held: Collection[str], side: str) -> int:
    numbers = (name.split(".")[2] for name in held if name.startswith(f"{side}.layer."))
    return 1 + max(map(int, numbers), default=-1)
