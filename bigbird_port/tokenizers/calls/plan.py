"""What a call asks for: padding, truncation and windows, checked before any text is cut."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NO_LIMIT = int(1e30)  # transformers' number for a tokenizer whose model length is not known

_PADDING = {True: "longest", "longest": "longest", "max_length": "max_length", False: None, "do_not_pad": None}
_TRUNCATION = {
    True: "longest_first",
    "longest_first": "longest_first",
    "only_first": "only_first",
    "only_second": "only_second",
    False: None,
    "do_not_truncate": None,
}


@dataclass(frozen=True)
class Plan:
    """Padding and truncation of one call; lengths are in tokens, special tokens included."""

    padding: str | None  # "longest" or "max_length"
    truncation: str | None  # "longest_first", "only_first" or "only_second"
    max_length: int | None
    stride: int  # tokens that a window repeats from the one before
    pad_to_multiple_of: int | None
    padding_side: str


def make_plan(
    padding: bool | str,
    truncation: bool | str | None,
    max_length: int | None,
    stride: int,
    pad_to_multiple_of: int | None,
    padding_side: str,
    model_max_length: int,
) -> Plan:
    """Resolve the arguments of a call; a ``max_length`` alone truncates longest first, as in transformers.

    Where there is no length, neither given nor the tokenizer's, nothing is cut or padded to it, with a warning.
    Raises ValueError naming the argument, what it may be, and what to do.
    """
    if truncation is None:
        truncation = max_length is not None and padding is False
    padded = choice("padding", padding, _PADDING)
    cut = choice("truncation", truncation, _TRUNCATION)
    choice("padding_side", padding_side, {"left": "left", "right": "right"})
    _check_number("max_length", max_length, least=1)
    _check_number("stride", stride, least=0)
    _check_number("pad_to_multiple_of", pad_to_multiple_of, least=1)
    if max_length is None and (cut or padded == "max_length"):
        if model_max_length >= NO_LIMIT:
            asked = f"truncation={truncation!r}" if cut else f"padding={padding!r}"
            warnings.warn(
                f"{asked} does nothing, because the tokenizer has no model_max_length: give max_length", stacklevel=4
            )
            cut, padded = None, None if padded == "max_length" else padded
        else:
            max_length = model_max_length
    if cut and padded and pad_to_multiple_of and max_length is not None and max_length % pad_to_multiple_of:
        raise ValueError(
            f"max_length is {max_length}, which is not a multiple of pad_to_multiple_of {pad_to_multiple_of}: "
            "rows would be padded beyond it; change one of them"
        )
    return Plan(padded, cut, max_length, stride, pad_to_multiple_of, padding_side)


def check_room(plan: Plan, special: int, windows: bool) -> None:
    """Raise ValueError if ``max_length`` holds no more than the ``special`` tokens, or the stride eats the rest."""
    if plan.truncation is None or plan.max_length is None:
        return
    if plan.max_length < special:
        raise ValueError(
            f"max_length is {plan.max_length}, but the special tokens alone take {special}: give at least {special + 1}"
        )
    room = plan.max_length - special
    if windows and plan.stride >= room:
        raise ValueError(
            f"stride is {plan.stride}, but max_length {plan.max_length} leaves {room} tokens for text, so that windows "
            f"would never advance: give a max_length of at least {plan.stride + special + 1} or a smaller stride"
        )


def check_pair_windows(plan: Plan, special: int, lengths: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError where a text of a pair (``lengths`` in tokens) is cut down to no more than the stride.

    The library stops the process's thread there instead of raising an error.
    """
    if plan.truncation is None or plan.max_length is None:
        return
    room = plan.max_length - special
    for number, pair in enumerate(lengths):
        if sum(pair) <= room:
            continue
        for length, keep in zip(pair, _kept(plan.truncation, pair, room), strict=True):
            if 0 < keep < length and keep <= plan.stride:
                raise ValueError(
                    f"stride is {plan.stride}, but truncation {plan.truncation!r} to max_length {plan.max_length} "
                    f"keeps {keep} of {length} tokens in one text of pair {number}, so that windows would never "
                    "advance: give a smaller stride or a larger max_length"
                )


def choice(name: str, value: object, choices: Mapping[Any, str | None]) -> str | None:
    """Return what ``choices`` has for ``value``; raises ValueError naming the choices."""
    if isinstance(value, bool | str) and value in choices:
        return choices[value]
    raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(repr, choices))}")


def _kept(truncation: str, pair: tuple[int, int], room: int) -> tuple[int, int]:
    first, second = pair
    if truncation == "only_first":
        return room - second, second
    if truncation == "only_second":
        return first, room - first
    short = min(first, second, room // 2)
    return (room - short, short) if first > second else (short, room - short)


def _check_number(name: str, value: object, least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ValueError(f"{name} is {value!r}, but it must be a whole number of at least {least}")
