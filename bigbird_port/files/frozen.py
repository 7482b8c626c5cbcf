"""JSON values that do not change, so that a configuration that holds them can be hashed and shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

_DEEPEST = 50  # of what a configuration holds beyond the model; what is nested deeper is no setting


class FrozenDict(dict[Any, Any]):
    """A dictionary that does not change after it is made, and hashes by what it holds."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return self

    def __reduce__(self) -> tuple[type, tuple[dict[Any, Any]]]:
        return FrozenDict, (dict(self),)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a configuration does not change: config.replace(...) makes another one")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse


def freeze(value: Any, depth: int = 0) -> Any:
    """Return a JSON value with FrozenDict for objects and tuples for lists; raises ValueError for any other value."""
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(inner, depth + 1) for key, inner in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(freeze(inner, depth + 1) for inner in value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"{value!r} is no JSON value")


def thaw(value: Any) -> Any:
    """Return a frozen value as plain dictionaries and lists, which the caller may change."""
    if isinstance(value, Mapping):
        return {key: thaw(inner) for key, inner in value.items()}
    return [thaw(inner) for inner in value] if isinstance(value, tuple) else value
