"""How each kind of source spells BigBird's weights."""

from __future__ import annotations

import re

from bigbird_port.families.styles import styles
from bigbird_port.schema.reading.style import Style

PREFIX = "bert"  # what the base model is called within a model of another head

STYLES = styles(
    PREFIX,
    "layer",
    Style(
        lambda row: row.keras,
        lambda row: row.axes,
        re.compile(r"(?<![^/])transformer_scaffold(_(?P<number>\d+))?(?=/)"),
        "transformer_scaffold{_i}",
    ),
)
