"""Where the tokens of a row lie in its text: words and characters, for rows of a fast tokenizer.

The methods are transformers'. Where one takes two numbers, the first may be left out: then it is that of row 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Encoding


class TokenSpan(NamedTuple):
    """The tokens start .. end - 1 of a row."""

    start: int
    end: int


class CharSpan(NamedTuple):
    """The characters start .. end - 1 of a text."""

    start: int
    end: int


class Alignment:
    """The methods of a batch that ask the tokenizers library; each raises ValueError for a slow tokenizer's rows."""

    encodings: Sequence[Encoding] | None

    @property
    def is_fast(self) -> bool:
        """Whether words and characters are known."""
        return self.encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """Number of texts in a row (1, or 2 for pairs); None where it is not known."""
        return self.encodings[0].n_sequences if self.encodings else None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Return the tokens of a row."""
        return self._encoding(batch_index).tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return each token's word number, None for special tokens."""
        return self._encoding(batch_index).word_ids

    def words(self, batch_index: int = 0) -> list[int | None]:
        """Return what ``word_ids`` does, under its old name."""
        return self.word_ids(batch_index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return 0 or 1 for the text that a token is from, None for special tokens."""
        return self._encoding(batch_index).sequence_ids

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return the number of the text that a token is from, or None."""
        encoding, token = self._of_token(batch_or_token_index, token_index)
        return encoding.token_to_sequence(token)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return the number of the word that a token is of, or None."""
        encoding, token = self._of_token(batch_or_token_index, token_index)
        found = encoding.token_to_word(token)
        return found if found is None or isinstance(found, int) else found[-1]

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Return the characters of a token, or None for a special one."""
        encoding, token = self._of_token(batch_or_token_index, token_index)
        found = encoding.token_to_chars(token)
        if found is None:
            return None
        return CharSpan(*(found if isinstance(found[0], int) else found[-1]))

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """Return the tokens of a word, or None where none are left of it."""
        encoding, word = self._of(batch_or_word_index, word_index)
        found = encoding.word_to_tokens(word, sequence_index)
        return None if found is None else TokenSpan(*found)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan:
        """Return the characters of a word."""
        encoding, word = self._of(batch_or_word_index, word_index)
        return CharSpan(*encoding.word_to_chars(word, sequence_index))

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the token that covers a character of a text, or None."""
        encoding, char = self._of(batch_or_char_index, char_index)
        return encoding.char_to_token(char, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the number of the word that a character is of, or None."""
        encoding, char = self._of(batch_or_char_index, char_index)
        return encoding.char_to_word(char, sequence_index)

    def _of(self, first: int, second: int | None) -> tuple[Encoding, int]:
        row, index = (0, first) if second is None else (first, second)
        return self._encoding(row), index

    def _of_token(self, first: int, second: int | None) -> tuple[Encoding, int]:
        """The row and the token, which may be counted from the end."""
        encoding, token = self._of(first, second)
        return encoding, token + len(encoding) if token < 0 else token

    def _encoding(self, row: int) -> Encoding:
        if self.encodings is None:
            raise ValueError(
                "words and offsets are not known to a slow tokenizer, such as BigBirdTokenizer: use "
                "the fast one, such as BigBirdTokenizerFast"
            )
        return self.encodings[row]
