"""Whether a model is of a family that can be judged at all."""

from __future__ import annotations

from pathlib import Path

from bigbird_port.families.family import Family


def check_judged(family: Family, out: Path | None) -> None:
    """Raise ValueError where there is no reference of a family."""
    if not family.judged:
        raise ValueError(
            f"{out}: it holds a {family.title} model, for which parity has no reference yet: 'bigbird-port verify' "
            "holds its weights against the source"
        )
