"""The faults of a family, by name. They are data of the family: parity/faults/<family>/catalogue.py."""

from __future__ import annotations

import importlib
from typing import Any

from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family
from parity.faults.fault import Fault


def faults_of(family: Family | None = None) -> dict[str, Fault]:
    """Return the faults of a family (None: the default one) by name."""
    module: Any = importlib.import_module(f"parity.faults.{(family or default_family()).name}.catalogue")
    faults: dict[str, Fault] = module.FAULTS
    return faults


def find_faults(names: tuple[str, ...], family: Family | None = None) -> list[Fault]:
    """Return the faults of these names, or all faults if no name is given.

    Raises ValueError for an unknown name. The message lists the known ones.
    """
    known = faults_of(family)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no fault {', '.join(unknown)}: expected some of {', '.join(known)}")
    return [fault for fault in known.values() if not names or fault.name in names]
