"""The special tokens, their ids, and where they stand in a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, overload

from tokenizers import AddedToken

from bigbird_port.tokenizers.added import AddedTokens, Token, as_tokens, changed, content_of

# The order is transformers', so that the files that list them read alike.
DEFAULT_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "[SEP]",
    "pad_token": "<pad>",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ADDITIONAL = "additional_special_tokens"


class _Named:
    """A special token, a text; None for a name without one. What is assigned must be in the vocabulary."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, tokenizer: None, owner: type) -> Self: ...

    @overload
    def __get__(self, tokenizer: SpecialTokens, owner: type) -> Any: ...

    def __get__(self, tokenizer: SpecialTokens | None, owner: type) -> Any | Self:
        return self if tokenizer is None else tokenizer._special.get(self._name)

    def __set__(self, tokenizer: SpecialTokens, token: Token) -> None:
        tokenizer._assign(self._name, token)
        tokenizer._changed()


class _NamedId:
    """The id of a special token, an int; None for a name without one. An id that is assigned assigns its token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, tokenizer: None, owner: type) -> Self: ...

    @overload
    def __get__(self, tokenizer: SpecialTokens, owner: type) -> Any: ...

    def __get__(self, tokenizer: SpecialTokens | None, owner: type) -> Any | Self:
        if tokenizer is None:
            return self
        token = tokenizer._special.get(self._name.removesuffix("_id"))
        return None if token is None else tokenizer._vocab[token]

    def __set__(self, tokenizer: SpecialTokens, number: Any) -> None:
        if not isinstance(number, int) or number not in tokenizer._tokens:
            raise ValueError(
                f"{self._name} is {number!r}, which no token of the vocabulary of {len(tokenizer)} has: give the id of "
                "a token, or add the token with add_special_tokens"
            )
        setattr(tokenizer, self._name.removesuffix("_id"), tokenizer._tokens[number])


class SpecialTokens(AddedTokens):
    """Up to seven special tokens by name, any number of additional ones, and the vocabulary that has them.

    Given as text, a special token must be in the vocabulary; given as AddedToken, it is added where it is missing.

    Raises ValueError for a token that the vocabulary does not have.
    """

    bos_token = _Named()
    eos_token = _Named()
    unk_token = _Named()
    sep_token = _Named()
    pad_token = _Named()
    cls_token = _Named()
    mask_token = _Named()
    bos_token_id = _NamedId()
    eos_token_id = _NamedId()
    unk_token_id = _NamedId()
    sep_token_id = _NamedId()
    pad_token_id = _NamedId()
    cls_token_id = _NamedId()
    mask_token_id = _NamedId()

    def __init__(
        self,
        tokens: Mapping[str, Any],
        pieces: Mapping[str, int],
        added: Mapping[int, AddedToken],
        additional: Sequence[Token],
    ) -> None:
        super().__init__(pieces, added)
        self._special: dict[str, str] = {}
        self._additional: list[str] = []
        for name, token in tokens.items():
            self._assign(name, token, add=isinstance(token, AddedToken))
        self._extend(additional)

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """Special tokens by name, with a list of the additional ones where there are any."""
        return {**self._special, **({ADDITIONAL: list(self._additional)} if self._additional else {})}

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once, the additional ones last."""
        return list(dict.fromkeys([*self._special.values(), *self._additional]))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of all_special_tokens, in the same order."""
        return [self._vocab[token] for token in self.all_special_tokens]

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a name of their own; assigned ones must be in the vocabulary."""
        return list(self._additional)

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Sequence[Token]) -> None:
        given = as_tokens(ADDITIONAL, tokens)
        for token in given:
            self._check_known(ADDITIONAL, token)
        self._additional = []
        self._extend(given)
        self._changed()

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """Ids of additional_special_tokens."""
        return [self._vocab[token] for token in self._additional]

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Add tokens, with ids behind all others; return how many ids are new.

        A token that the vocabulary has keeps its id, and is no longer cut. ``special_tokens``: they are special, and
        listed as additional ones. The model needs an embedding for every new id.

        Raises ValueError for what is no token, and for an empty one.
        """
        new = super().add_tokens(new_tokens, special_tokens)
        for token in as_tokens("new_tokens", new_tokens):
            content = content_of(token)
            if self._added[self._vocab[content]].special and content not in self.all_special_tokens:
                self._additional.append(content)
        return new

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_additional_special_tokens: bool = True
    ) -> int:
        """Make tokens special by name, adding those that the vocabulary lacks; return how many ids are new.

        The names are those of special_tokens_map; "additional_special_tokens" takes a list, which replaces the
        present one or is appended to it. The model needs an embedding for every new id.

        Raises ValueError for an unknown name, and for what is no token.
        """
        known = [*DEFAULT_TOKENS, ADDITIONAL]
        given = {name: as_tokens(name, tokens) for name, tokens in special_tokens_dict.items()}
        for name, tokens in given.items():
            if name not in known or (name != ADDITIONAL and len(tokens) != 1):
                expected = f"one of {', '.join(known)}" if name not in known else "one token"
                raise ValueError(f"add_special_tokens: {name!r} is {special_tokens_dict[name]!r}, expected {expected}")
        before = len(self)
        for name, tokens in given.items():
            if name == ADDITIONAL:
                self._additional = [] if replace_additional_special_tokens and tokens else self._additional
                self._extend(tokens)
            else:
                self._assign(name, tokens[0], add=True)
        self._changed()
        return len(self) - before

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return ``[CLS] A [SEP]``, or ``[CLS] A [SEP] B [SEP]`` for a pair."""
        return self._framed(self._vocab.__getitem__, token_ids_0, token_ids_1)

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Return 1 for special tokens and 0 for others, of the row that the sequences make.

        With ``already_has_special_tokens``, ``token_ids_0`` is that row, and any of the special ids counts.

        Raises ValueError if a second sequence comes with a row that has its special tokens.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError(
                    "token_ids_1 is given with already_has_special_tokens=True, but then token_ids_0 is the whole "
                    "row: leave token_ids_1 out"
                )
            special = set(self.all_special_ids)
            return [int(token in special) for token in token_ids_0]
        mask = [1, *([0] * len(token_ids_0)), 1]
        return mask if token_ids_1 is None else [*mask, *([0] * len(token_ids_1)), 1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return 0 for ``[CLS] A [SEP]`` and 1 for ``B [SEP]``."""
        types = [0] * (len(token_ids_0) + 2)
        return types if token_ids_1 is None else types + [1] * (len(token_ids_1) + 1)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many tokens a row has besides those of its texts."""
        return 3 if pair else 2

    def _framed(self, show: Callable[[str], Any], first: Sequence[Any], second: Sequence[Any] | None) -> list[Any]:
        """The row of one or two sequences; ``show`` gives what stands for a special token."""
        cls, sep = show(self.cls_token), show(self.sep_token)
        row = [cls, *first, sep]
        return row if second is None else [*row, *second, sep]

    def _assign(self, name: str, token: Any, add: bool = False) -> None:
        if not add:
            self._check_known(name, token)
        self._special[name] = self._make_special(token, lstrip=name == "mask_token")

    def _extend(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            content = self._make_special(token)
            if content not in self._additional:
                self._additional.append(content)

    def _make_special(self, token: Token, lstrip: bool = False) -> str:
        """Let a token be found in texts as a special one, and return its text."""
        content = content_of(token)
        present = self._added.get(self._vocab.get(content, -1))
        if isinstance(token, str):
            token = present or AddedToken(token, lstrip=lstrip)
        self._put(changed(token, special=True))
        return content

    def _check_known(self, name: str, token: Any) -> None:
        content: Any = content_of(token)
        if not isinstance(content, str) or content not in self._vocab:
            raise ValueError(
                f"{name} is {content!r}, which the vocabulary of {len(self)} pieces does not have, and a model has no "
                "embedding for it: use one of its pieces, the vocabulary that belongs to the checkpoint, or "
                "add_special_tokens where the model's embeddings are resized too"
            )
