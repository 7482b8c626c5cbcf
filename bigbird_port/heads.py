"""The heads of the model, under the name that they have always had here: see bigbird_port/families/bigbird/heads.py."""

from __future__ import annotations

from bigbird_port.families.bigbird.heads import HEADS, find_head
from bigbird_port.families.family import Head

__all__ = ["HEADS", "Head", "find_head"]
