"""How each kind of source spells BigBird-Pegasus' weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bigbird_port.schema.reading.style import Style, StyleName

PREFIX = "model"  # what the base model is called within a model of another head

STYLES: Mapping[StyleName, Style] = {
    "original": Style(
        lambda row: row.original, lambda row: row.axes, re.compile(r"/layer_(?P<number>\d+)/"), "/layer_{i}/"
    ),
    "saved-model": Style(  # the original exports its variables under their own names
        lambda row: (), lambda row: row.axes, re.compile(r"(?!)(?P<number>)"), ""
    ),
    "torch": Style(
        lambda row: (row.torch,),
        lambda row: row.torch_axes,
        re.compile(r"\.layers\.(?P<number>\d+)\."),
        ".layers.{i}.",
        prefix=f"{PREFIX}.",
        per_head=True,
    ),
    "flax": Style(
        lambda row: (row.flax,),
        lambda row: row.flax_axes,
        re.compile(r"/layers/(?P<number>\d+)/"),
        "/layers/{i}/",
        prefix=f"{PREFIX}/",
        per_head=True,
    ),
    "neutral": Style(
        lambda row: (row.name,), lambda row: row.axes, re.compile(r"\.layer\.(?P<number>\d+)\."), ".layer.{i}."
    ),
}
