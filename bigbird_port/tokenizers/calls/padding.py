"""Padding of rows that were encoded before, as data loaders need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bigbird_port.tokenizers.calls.plan import Plan


def pad_rows(
    given: Mapping[str, Any] | Sequence[Mapping[str, Any]], plan: Plan, fill: Mapping[str, int], mask: bool
) -> dict[str, Any]:
    """Pad every entry that ``fill`` has a value for, and add an attention mask if ``mask`` asks for one.

    A row stays a row, and a batch becomes a batch. Raises ValueError for rows without ``input_ids``.
    """
    batch = _by_name(given)
    if "input_ids" not in batch:
        raise ValueError(f"pad: the rows have {sorted(batch)} but no input_ids: give what the tokenizer returned")
    single = bool(batch["input_ids"]) and isinstance(batch["input_ids"][0], int)
    if single:
        batch = {name: [values] for name, values in batch.items()}
    if mask and "attention_mask" not in batch:
        batch["attention_mask"] = [[1] * len(row) for row in batch["input_ids"]]
    length = _length(batch["input_ids"], plan)
    padded = {
        name: [_padded(row, length, fill[name], plan.padding_side) for row in rows] if name in fill else rows
        for name, rows in batch.items()
    }
    return {name: rows[0] for name, rows in padded.items()} if single else padded


def _by_name(given: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    if isinstance(given, Mapping):
        return {name: _list(values) for name, values in given.items()}
    return {name: [_list(row[name]) for row in given] for name in (given[0] if given else ())}


def _list(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


def _length(rows: Sequence[Sequence[int]], plan: Plan) -> int:
    if plan.padding is None:
        return 0
    longest = max((len(row) for row in rows), default=0)
    length = plan.max_length if plan.padding == "max_length" and plan.max_length is not None else longest
    multiple = plan.pad_to_multiple_of or 1
    return -(-length // multiple) * multiple


def _padded(row: Sequence[int], length: int, value: int, side: str) -> list[int]:
    row = _list(row)
    missing = [value] * (length - len(row))
    return [*missing, *row] if side == "left" else [*row, *missing]
