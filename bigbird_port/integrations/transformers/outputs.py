"""Outputs of transformers' kind, with the fields of the product's: dictionaries that are dataclasses."""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass
from typing import Any

from transformers.utils.generic import ModelOutput

from bigbird_port.families.ported import ported_class, product_class
from models_torch.bigbird import outputs as bigbird_outputs
from models_torch.pegasus import outputs as pegasus_outputs

PAST = "past_key_values"  # the product's name of a cache
CACHE = "cache" if hasattr(ModelOutput, "cache_params") else PAST  # and that of this version of transformers
_LEFT_OUT = ("taps",)
_MADE: dict[type[Any], type[Any]] = {}


def output_class(kind: type[Any]) -> type[Any]:
    """Return the class that stands for one of the product's; it has all fields but the taps."""
    if kind in _MADE:
        return _MADE[kind]
    names = [_named(item.name) for item in fields(kind) if item.name not in _LEFT_OUT]
    made = make_dataclass(
        ported_class(kind.__name__), [(name, Any, field(default=None)) for name in names], bases=(ModelOutput,)
    )
    made.__module__, made.__doc__ = __name__, f"As {kind.__name__}, for transformers."
    globals()[made.__name__] = _MADE[kind] = made  # a name of the module, because pickle looks for it there
    return made


def as_output(found: Any) -> Any:
    """Return one of the product's outputs as transformers' kind."""
    values = {_named(item.name): getattr(found, item.name) for item in fields(found) if item.name not in _LEFT_OUT}
    return output_class(type(found))(**values)


def _named(field_name: str) -> str:
    return CACHE if field_name == PAST else field_name


def __getattr__(name: str) -> Any:
    """Make a class that pickle looks for before any model has returned one."""
    for module in (bigbird_outputs, pegasus_outputs):
        kind = getattr(module, product_class(name), None)
        if kind is not None and name != product_class(name):
            return output_class(kind)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
