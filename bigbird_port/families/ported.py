"""What the classes of bigbird_port.integrations.transformers are called, and back from it to the product's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CLASS, _TYPE = "Ported", "_port"


def ported_class(name: str) -> str:
    """Return the name of the class that stands for one of the product's."""
    return f"{_CLASS}{name}"


def ported_type(model_type: str) -> str:
    """Return the model_type under which transformers knows a family's models."""
    return f"{model_type}{_TYPE}"


def product_class(name: str) -> str:
    """Return the product's name of a class; others stay."""
    return name.removeprefix(_CLASS)


def product_values(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of a config.json with the product's model_type."""
    named = values.get("model_type")
    if not isinstance(named, str) or not named.endswith(_TYPE):
        return values
    return {**values, "model_type": named.removesuffix(_TYPE)}
