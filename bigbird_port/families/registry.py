"""The families that there are, and which of them a configuration, a head or a class belongs to."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbird_port.families.ported import product_class, product_values
from bigbird_port.files.json_object import read_json_object

if TYPE_CHECKING:
    from bigbird_port.families.configuration import Configuration
    from bigbird_port.families.family import Family, Head

# model_type -> module and name of the value; imported when a family is asked for, because --help should not wait.
_WHERE = {
    "big_bird": ("bigbird_port.families.bigbird.family", "BIGBIRD"),
    "bigbird_pegasus": ("bigbird_port.families.pegasus.family", "PEGASUS"),
}
_registered: dict[str, Family] = {}


def families() -> list[Family]:
    """Return every family, those that were registered first."""
    return [*_registered.values(), *(_built_in(name) for name in _WHERE if name not in _registered)]


def model_types() -> list[str]:
    """Return the model_type of every family."""
    return list(dict.fromkeys([*_WHERE, *_registered]))


def family_of(model_type: str) -> Family:
    """Return the family whose configurations have this model_type; raises ValueError where there is none."""
    if model_type not in _registered and model_type not in _WHERE:
        raise ValueError(f"no family has the model_type {model_type!r}: expected one of {', '.join(model_types())}")
    return _registered[model_type] if model_type in _registered else _built_in(model_type)


def family_named(name: str) -> Family:
    """Return the family of a name, as people type it; raises ValueError naming those that there are."""
    known = {family.name: family for family in families()}
    if name not in known:
        raise ValueError(f"there is no family {name!r}: expected one of {', '.join(known)}")
    return known[name]


def default_family() -> Family:
    """Return the family of a source that does not say whose it is."""
    return family_of(next(iter(_WHERE)))


@contextmanager
def registered(family: Family) -> Iterator[Family]:
    """Have a family for as long as the context lasts; it stands in for one of the same model_type."""
    former = _registered.get(family.model_type)
    _registered[family.model_type] = family
    try:
        yield family
    finally:
        del _registered[family.model_type]
        if former is not None:
            _registered[family.model_type] = former


def find_head(name: str) -> Head:
    """Return the head called ``name`` (its name, an alias, or its torch or Flax class) of any family.

    Raises ValueError naming the heads there are.
    """
    for family in families():
        if head := family.find_head(product_class(name)):
            return head
    known = dict.fromkeys(head for family in families() for head in family.heads)
    raise ValueError(f"unknown head {name!r}: expected one of {', '.join(known)}")


def config_from(values: Mapping[str, Any], origin: str, family: Family | None = None) -> Configuration:
    """Build a configuration of the family that JSON values name, or of ``family`` (None: the default).

    Errors name ``origin``.
    """
    values = product_values(values)
    named = values.get("model_type")
    if isinstance(named, str) and named in model_types():
        family = family_of(named)
    family = family or default_family()
    try:
        return family.config.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


def read_config(path: Path, family: Family | None = None) -> Configuration:
    """Read a configuration file of any family, or of ``family`` where it names none; errors name the file."""
    return config_from(read_json_object(path), str(path), family)


def _built_in(model_type: str) -> Family:
    module, name = _WHERE[model_type]
    family: Family = getattr(importlib.import_module(module), name)
    return family
