"""Where a head's reference is, beside the others or in a module that its record names; and where a family's own is."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from bigbird_port.families.configuration import Configuration
from bigbird_port.families.family import Family


def own_function(config: Configuration, head: str, name: str, ours: Mapping[str, Callable[..., Any]]) -> Any:
    """Return a head's own function: called ``name`` in the module that its record names, or else from ``ours``."""
    module = config.family.heads[head].reference
    return getattr(importlib.import_module(module), name) if module else ours[head]


def own_module(module: ModuleType, family: Family) -> Any:
    """Return what a family has in place of a module: that of the same name in a folder of its own, or the module."""
    folder, _, name = module.__name__.rpartition(".")
    own = f"{folder}.{family.name}"
    is_there = importlib.util.find_spec(own) is not None and importlib.util.find_spec(f"{own}.{name}") is not None
    return importlib.import_module(f"{own}.{name}") if is_there else module
