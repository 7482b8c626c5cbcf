"""BigBird as a value."""

from __future__ import annotations

from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.families.bigbird.taps import STAGES, WHOLE
from bigbird_port.families.family import Family

BIGBIRD = Family("bigbird", HEADS, STAGES, WHOLE, "last_hidden_state")
