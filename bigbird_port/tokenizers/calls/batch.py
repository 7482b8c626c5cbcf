"""What a call returns: rows by name, as lists or as one framework's arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding

TENSORS = ("np", "pt", "jax")


class BatchEncoding(dict[str, Any]):
    """Rows by name (``input_ids``, ``attention_mask``, ...), also as attributes.

    Lists of ints, or arrays of shape (rows, tokens) where a call asked for tensors. ``encodings`` has one
    ``tokenizers.Encoding`` per row for a fast tokenizer, and is None for a slow one.
    """

    def __init__(self, rows: Mapping[str, Any], encodings: Sequence[Encoding] | None = None) -> None:
        super().__init__(rows)
        self.encodings = encodings

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the encoding has no {name!r}, only {', '.join(self)}") from None

    def tokens(self, row: int = 0) -> list[str]:
        """Return the tokens of a row; raises ValueError for a slow tokenizer."""
        return self._encoding(row).tokens

    def word_ids(self, row: int = 0) -> list[int | None]:
        """Return each token's word number, None for special tokens; raises ValueError for a slow tokenizer."""
        return self._encoding(row).word_ids

    def sequence_ids(self, row: int = 0) -> list[int | None]:
        """Return 0 or 1 for the text that a token is from, None for special tokens; as ``word_ids``."""
        return self._encoding(row).sequence_ids

    def char_to_token(self, row: int, char: int, sequence: int = 0) -> int | None:
        """Return the token that covers a character of a text, or None; as ``word_ids``."""
        return self._encoding(row).char_to_token(char, sequence)

    def _encoding(self, row: int) -> Encoding:
        if self.encodings is None:
            raise ValueError(
                "words and offsets are not known here: use BigBirdTokenizerFast or BigBirdPegasusTokenizerFast"
            )
        return self.encodings[row]


def to_tensors(rows: Mapping[str, Any], framework: str | None) -> dict[str, Any]:
    """Turn every entry into an array of ``framework``: int64, or int32 for "jax"; None leaves the lists.

    Raises ValueError for an unknown framework, and for rows that differ in length.
    """
    if framework is None:
        return dict(rows)
    if framework not in TENSORS:
        raise ValueError(f"return_tensors is {framework!r}, but it must be one of {', '.join(map(repr, TENSORS))}")
    return {name: _tensor(name, value, framework) for name, value in rows.items()}


def _tensor(name: str, value: Any, framework: str) -> Any:
    try:
        array = np.asarray(value, dtype=np.int64)
    except ValueError:
        lengths = sorted({len(row) for row in value})
        raise ValueError(
            f"{name}: rows of {lengths[0]} to {lengths[-1]} tokens make no array: ask for padding=True, and for "
            "truncation=True where there is a max_length"
        ) from None
    if framework == "pt":
        import torch

        return torch.from_numpy(array)
    if framework == "jax":
        import jax.numpy as jnp

        return jnp.asarray(array.astype(np.int32))
    return array
