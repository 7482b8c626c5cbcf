"""The texts of a call, checked and brought into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Text = str | list[str]  # a text, or the words of one


@dataclass(frozen=True)
class Batch:
    """Texts of one call; ``single`` when they came without a batch around them."""

    texts: list[Text]
    pairs: list[Text] | None
    single: bool


def as_batch(text: Any, text_pair: Any, is_split_into_words: bool) -> Batch:
    """Return the texts and pairs of a call.

    Raises ValueError for what is no text, for a batch whose pairs differ in number, and for text
    that has no UTF-8 form.
    """
    single = _is_one(text, is_split_into_words)
    texts = [text] if single else list(_sequence("text", text))
    pairs: list[Any] | None = None
    if text_pair is not None:
        if single != _is_one(text_pair, is_split_into_words):
            raise ValueError("text and text_pair: one is a text and the other a batch: give two texts or two lists")
        pairs = [text_pair] if single else list(_sequence("text_pair", text_pair))
        if len(pairs) != len(texts):
            raise ValueError(f"text has {len(texts)} entries and text_pair {len(pairs)}: give one for each")
    return Batch(
        [_checked(one, "text", is_split_into_words) for one in texts],
        None if pairs is None else [_checked(one, "text_pair", is_split_into_words) for one in pairs],
        single,
    )


def _is_one(text: Any, words: bool) -> bool:
    if not words:
        return isinstance(text, str)
    return isinstance(text, Sequence) and not isinstance(text, str) and all(isinstance(word, str) for word in text)


def _sequence(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    raise ValueError(f"{name} is a {type(value).__name__}, but it must be a text or a list of texts")


def _checked(one: Any, name: str, words: bool) -> Text:
    if words and isinstance(one, list | tuple):
        return [str(_checked(word, name, False)) for word in one]
    if words or not isinstance(one, str):
        hint = " with is_split_into_words=True" if isinstance(one, list | tuple) else ""
        wanted = "a list of words" if words else "a text"
        raise ValueError(f"{name} holds a {type(one).__name__} where {wanted} was expected: give it{hint}")
    try:
        one.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} holds the lone surrogate U+{ord(one[error.start]):04X} at character {error.start}, which is no "
            "character of any text: read the file as UTF-8, or replace it"
        ) from None
    return one
