"""How each kind of source spells a family's weights, where a row of the schema says it all but the layers' numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bigbird_port.schema.reading.style import Style, StyleName


def styles(prefix: str, layers: str, saved_model: Style) -> Mapping[StyleName, Style]:
    """Return the styles of a family.

    prefix: what the base model is called within a model of another head, in torch and Flax. layers: what both call the
    list of layers. saved_model: how a SavedModel spells the weights, which each family's export does by its own rule.
    """
    return {
        "original": Style(
            lambda row: row.original, lambda row: row.axes, re.compile(r"/layer_(?P<number>\d+)/"), "/layer_{i}/"
        ),
        "saved-model": saved_model,
        "torch": Style(
            lambda row: (row.torch,),
            lambda row: row.torch_axes,
            re.compile(rf"\.{layers}\.(?P<number>\d+)\."),
            f".{layers}.{{i}}.",
            prefix=f"{prefix}.",
            per_head=True,
        ),
        "flax": Style(
            lambda row: (row.flax,),
            lambda row: row.flax_axes,
            re.compile(rf"/{layers}/(?P<number>\d+)/"),
            f"/{layers}/{{i}}/",
            prefix=f"{prefix}/",
            per_head=True,
        ),
        "neutral": Style(
            lambda row: (row.name,), lambda row: row.axes, re.compile(r"\.layer\.(?P<number>\d+)\."), ".layer.{i}."
        ),
    }
