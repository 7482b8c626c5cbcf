"""What a classifier calls its classes: id2label and label2id, by transformers' rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigbird_port.files.frozen import FrozenDict, freeze


def default_labels(count: int) -> dict[int, str]:
    """Return the names that classes have where nobody named them: LABEL_0, LABEL_1, ..."""
    return {i: f"LABEL_{i}" for i in range(count)}


def by_id(labels: Any) -> FrozenDict:
    """Return id2label with integers as keys, which are text in JSON; raises ValueError for what is none."""
    if not isinstance(labels, Mapping):
        raise ValueError(f"config: id2label is {labels!r}, but it must map ids to names")
    try:
        numbered = {int(key): value for key, value in labels.items()}
    except (TypeError, ValueError):
        raise ValueError(f"config: id2label has the keys {list(labels)[:9]}, but they must be integers") from None
    if len(numbered) < len(labels):
        raise ValueError(f"config: id2label has an id twice among {list(labels)[:9]}")
    return frozen_labels("id2label", numbered)


def frozen_labels(name: str, labels: Any) -> FrozenDict:
    """Return a mapping of labels that does not change; raises ValueError naming the field where it is none."""
    if not isinstance(labels, Mapping):
        raise ValueError(f"config: {name} is {labels!r}, but it must be a mapping")
    try:
        frozen: FrozenDict = freeze(labels)
    except ValueError as error:
        raise ValueError(f"config: {name}: {error}") from None
    return frozen


def inverted(id2label: Mapping[int, Any]) -> dict[Any, int]:
    """Return the label2id that belongs to an id2label; names that are no text go by their text."""
    return {value if isinstance(value, str) else str(value): key for key, value in id2label.items()}
