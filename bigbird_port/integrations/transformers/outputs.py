"""Outputs of transformers' kind, with the fields of the product's: dictionaries that are dataclasses."""

from __future__ import annotations

import functools
from dataclasses import field, fields, make_dataclass
from typing import Any

from transformers.utils import ModelOutput

PAST = "past_key_values"  # the product's name of a cache
CACHE = "cache" if hasattr(ModelOutput, "cache_params") else PAST  # and that of this version of transformers
_LEFT_OUT = ("taps",)


@functools.cache
def output_class(kind: type[Any]) -> type[Any]:
    """Return the class that stands for one of the product's; it has all fields but the taps."""
    names = [_named(item.name) for item in fields(kind) if item.name not in _LEFT_OUT]
    made = make_dataclass(
        f"Ported{kind.__name__}", [(name, Any, field(default=None)) for name in names], bases=(ModelOutput,)
    )
    made.__module__, made.__doc__ = __name__, f"As {kind.__name__}, for transformers."
    globals()[made.__name__] = made  # where pickle looks for it
    return made


def as_output(found: Any) -> Any:
    """Return one of the product's outputs as transformers' kind."""
    values = {_named(item.name): getattr(found, item.name) for item in fields(found) if item.name not in _LEFT_OUT}
    return output_class(type(found))(**values)


def _named(field_name: str) -> str:
    return CACHE if field_name == PAST else field_name
