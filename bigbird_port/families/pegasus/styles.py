"""How each kind of source spells BigBird-Pegasus' weights."""

from __future__ import annotations

import re

from bigbird_port.families.styles import styles
from bigbird_port.schema.reading.style import Style

PREFIX = "model"  # what the base model is called within a model of another head

STYLES = styles(
    PREFIX,
    "layers",
    # the original exports its variables under their own names
    Style(lambda row: (), lambda row: row.axes, re.compile(r"(?!)(?P<number>)"), ""),
)
