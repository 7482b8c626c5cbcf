"""From tokens back to text, the same for both tokenizers."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bigbird_port.tokenizers.vocabulary import SPACE

# English spacing that clean_up_tokenization_spaces takes out, in transformers' order.
_CLEAN_UP = {
    " .": ".",
    " ?": "?",
    " !": "!",
    " ,": ",",
    " ' ": "'",
    " n't": "n't",
    " 'm": "'m",
    " 's": "'s",
    " 've": "'ve",
    " 're": "'re",
}


def join_pieces(tokens: Sequence[str]) -> str:
    """Return the text of pieces, without space at its ends; special tokens stay as they are."""
    return "".join(tokens).replace(SPACE, " ").strip()


def join_rows(tokens: Sequence[str], added: set[str], spaces: bool, join: Callable[[Sequence[str]], str]) -> str:
    """Return the text of a row: added tokens apart from the text, [SEP] and [MASK] without a space before.

    join: gives the text of the pieces between added tokens.
    """
    parts: list[str] = []
    for is_added, group in itertools.groupby(tokens, key=added.__contains__):
        run = list(group)
        parts.extend(run if is_added else [join(run)])
    if not spaces:
        return "".join(parts)
    return re.sub(r" (?=\[(?:MASK|SEP)\])", "", " ".join(parts))


def clean_up(text: str) -> str:
    """Take out the spaces that English tokenization leaves before punctuation and contractions."""
    for spaced, tight in _CLEAN_UP.items():
        text = text.replace(spaced, tight)
    return text


def to_ids(token_ids: Any) -> list[int]:
    """Return a list of ints for one id, a sequence or an array of shape (tokens,).

    Raises ValueError for anything else, such as a batch.
    """
    values = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
    try:
        return [operator.index(value) for value in (values if isinstance(values, Iterable) else [values])]
    except TypeError:
        raise ValueError(
            f"token ids are {str(values)[:60]}, expected whole numbers in one row: decode batches with batch_decode"
        ) from None
