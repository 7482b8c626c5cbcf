"""Tokens that were added to a vocabulary: found in a text before anything else, and never cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tokenizers import AddedToken

Token: TypeAlias = str | AddedToken


class AddedTokens(ABC):
    """The pieces of a vocabulary, and the tokens added to them, by id.

    An added token is new, with an id behind the others, or a piece that texts are not to be cut through. Its
    ``lstrip``, ``rstrip`` and ``single_word`` are the tokenizers library's: the white space before or behind it is
    part of it; it is not found beside a letter, digit or underscore. ``normalized`` means nothing without a
    tokenizer.json that was written elsewhere: these tokens are found in the text as it is.
    """

    def __init__(self, pieces: Mapping[str, int], added: Mapping[int, AddedToken]) -> None:
        self._pieces = dict(pieces)
        self._added = {number: self._admitted(token) for number, token in sorted(added.items())}
        self._vocab = self._pieces | self.added_tokens_encoder
        self._tokens = {number: piece for piece, number in self._pieces.items()}
        self._tokens |= {number: token.content for number, token in self._added.items()}

    @abstractmethod
    def _changed(self) -> None:
        """Bring what was made from the tokens up to date."""

    def _admitted(self, token: AddedToken) -> AddedToken:
        """Return a token as this tokenizer finds it."""
        return changed(token, normalized=False)

    def __len__(self) -> int:
        return len(self._vocab)

    @property
    def vocab_size(self) -> int:
        """Number of pieces in the vocabulary, without the tokens that were added behind them."""
        return len(self._pieces)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Added tokens by id, in the order of the ids; special tokens are among them."""
        return dict(sorted(self._added.items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Ids of the added tokens, in the order of the ids; special tokens are among them."""
        return {token.content: number for number, token in sorted(self._added.items())}

    def get_added_vocab(self) -> dict[str, int]:
        """Return ids by added token; special tokens are among them, also those that are pieces."""
        return self.added_tokens_encoder

    def get_vocab(self) -> dict[str, int]:
        """Return ids by piece and added token."""
        return dict(self._vocab)

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Add tokens, with ids behind all others; return how many ids are new.

        A token that the vocabulary has keeps its id, and is no longer cut. ``special_tokens``: decoding may skip
        them. The model needs an embedding for every new id.

        Raises ValueError for what is no token, and for an empty one.
        """
        given = as_tokens("new_tokens", new_tokens)
        before = len(self._vocab)
        for token in given:
            self._put(_special(token) if special_tokens else token)
        self._changed()
        return len(self._vocab) - before

    def _put(self, token: Token) -> None:
        """Add one token; a plain string that was added before stays what it is."""
        content = content_of(token)
        number = self._vocab.get(content)
        if isinstance(token, str) and number in self._added:
            return
        if number is None:
            # transformers' number, which only a folder with gaps between its ids has given away already.
            number = len(self._vocab)
            while number in self._tokens:
                number += 1
        self._added[number] = self._admitted(token if isinstance(token, AddedToken) else AddedToken(token))
        self._vocab[content], self._tokens[number] = number, content


def as_tokens(name: str, given: Any) -> list[Token]:
    """Return the tokens of an argument in a list; raises ValueError, naming it, for what is no token or empty."""
    tokens: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    for token in tokens:
        if not (isinstance(token, str | AddedToken) and content_of(token)):
            raise ValueError(f"{name} holds {token!r} where a token was expected: give a text, or an AddedToken")
    return tokens


def content_of(token: Token) -> str:
    """Return the text of a token."""
    return token.content if isinstance(token, AddedToken) else token


def changed(token: AddedToken, **attributes: Any) -> AddedToken:
    """Return a token with other attributes."""
    return AddedToken(**(attributes_of(token) | attributes))


def attributes_of(token: AddedToken) -> dict[str, Any]:
    """Return content and attributes of a token, in the order in which transformers' files have them."""
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {name: getattr(token, name) for name in names}


def _special(token: Token) -> AddedToken:
    if isinstance(token, AddedToken):
        return changed(token, special=True)
    return AddedToken(token, special=True, normalized=False)
