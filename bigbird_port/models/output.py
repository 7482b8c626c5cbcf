"""What a model returns in either framework: a dataclass that is also a mapping, and can be read by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any


class ModelOutput(Mapping[str, Any]):
    """Base of the dataclasses that models return.

    As a mapping it holds the fields that are not None, in order, under their names, so that ``dict(output)`` and
    ``f(**output)`` work; ``output[0]`` and ``output[1:]`` are their values. Taps are no part of either: they are an
    attribute, and ``output["taps"]``.
    """

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order, without the taps."""
        return tuple(self.values())

    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self._names() or getattr(self, key) is None:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names() if name != "taps" and getattr(self, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _names(self) -> list[str]:
        return [field.name for field in fields(self)]  # type: ignore[arg-type]  # subclasses are dataclasses


class RebuiltOutput(ModelOutput):
    """An output that can also be made of a mapping of its fields, as those who rebuild nested values do."""

    def __post_init__(self) -> None:
        first, *others = self._names()
        values = getattr(self, first)
        if isinstance(values, Mapping) and all(getattr(self, name) is None for name in others):
            type(self).__init__(self, **values)
