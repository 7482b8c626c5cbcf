"""BigBird as a value."""

from __future__ import annotations

from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.families.bigbird.taps import EMBEDDINGS, LAYERS, WHOLE
from bigbird_port.families.family import Family

BIGBIRD = Family("bigbird", HEADS, EMBEDDINGS, LAYERS, WHOLE, "last_hidden_state")
