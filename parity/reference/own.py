"""Where a head's reference is: beside the others, or in a module that its record names."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from bigbird_port.families.configuration import Configuration


def own_function(config: Configuration, head: str, name: str, ours: Mapping[str, Callable[..., Any]]) -> Any:
    """Return a head's own function: called ``name`` in the module that its record names, or else from ``ours``."""
    module = config.family.heads[head].reference
    return getattr(importlib.import_module(module), name) if module else ours[head]
