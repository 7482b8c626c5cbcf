"""Whether a model is of a family that can be judged at all."""

from __future__ import annotations

from pathlib import Path

from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family


def check_judged(family: Family, out: Path | None, norm_type: str = "postnorm") -> None:
    """Raise ValueError where there is no reference of a family, or of a model of this norm_type."""
    if norm_type != "postnorm" and family is default_family():
        raise ValueError(
            f"{out}: norm_type is {norm_type}, and parity has a reference of postnorm models alone: "
            "'bigbird-port verify' holds its weights against the source"
        )
    if not family.judged:
        raise ValueError(
            f"{out}: it holds a {family.title} model, for which parity has no reference yet: 'bigbird-port verify' "
            "holds its weights against the source"
        )
