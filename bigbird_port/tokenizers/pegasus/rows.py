"""What both tokenizers of BigBird-Pegasus share: their special tokens, and the rows of documents and summaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Encoding, processors

from bigbird_port.tokenizers.added import Token, content_of
from bigbird_port.tokenizers.base import TokenizerBase
from bigbird_port.tokenizers.calls.batch import BatchEncoding
from bigbird_port.tokenizers.calls.inputs import Text
from bigbird_port.tokenizers.calls.plan import Plan, check_room
from bigbird_port.tokenizers.pegasus.rules import TextRules
from bigbird_port.tokenizers.special import ADDITIONAL, DEFAULT_TOKENS
from bigbird_port.tokenizers.vocabulary import Vocabulary, read_vocabulary, shifted

_ALWAYS = ("pad_token", "eos_token", "unk_token")
_NEWLINE = "<n>"


class PegasusRows(TokenizerBase):
    """A tokenizer of documents, which have no end, and of summaries, which end with ``</s>``.

    Special tokens have names and ids, but a text that spells one is cut as any other text, as in the original. Tokens
    that are added are found before the rules of the text come to them.
    """

    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]
    peer: ClassVar[str] = "PegasusTokenizer"
    peer_options: ClassVar[Mapping[str, Any]] = {"offset": 103}
    own_options: ClassVar[tuple[str, ...]] = (
        *("offset", "mask_token_sent", "substitute_newline", "tight_brackets", "end_documents"),
    )
    rules: TextRules
    offset: int
    mask_token_sent: str | None
    end_documents: bool
    _ends: bool | None = None  # of one call, whatever end_documents says
    _reserved: frozenset[str] = frozenset()

    def _settle(
        self, pieces: Sequence[str], offset: int, newline: str | None, tight_brackets: bool, end_documents: bool
    ) -> None:
        """Take what the constructor was given; ``pieces`` are those of the file."""
        found = (_NEWLINE if _NEWLINE in pieces else None) if newline is None else newline or None
        self.rules = TextRules(found, tight_brackets)
        self.offset, self.end_documents = offset, end_documents
        self._reserved = frozenset(reserved(offset))
        self.mask_token_sent = "<mask_1>" if offset else None

    @property
    def substitute_newline(self) -> str:
        """What stands for a newline; empty where newlines are left."""
        return self.rules.newline or ""

    @property
    def tight_brackets(self) -> bool:
        """Whether a blank before a bracketed word is taken away."""
        return self.rules.tight

    @property
    def listed_tokens(self) -> dict[int, AddedToken]:
        """What a folder lists as added tokens, by id: transformers finds the special ones in texts."""
        named = {self._vocab[token]: AddedToken(token, special=True) for token in self.all_special_tokens}
        return dict(sorted({**named, **self._added}.items()))

    def _target_rows(self, text: Any, text_pair: Any, **options: Any) -> BatchEncoding:
        """Encode summaries, each with ``</s>`` behind it, and then cut, so that one too long loses it, as the original.

        A document ends with ``</s>`` only where ``end_documents`` says so.
        """
        writer = object.__new__(type(self))  # which shares the pipeline, and ends its rows
        writer.__dict__.update(self.__dict__, _ends=True)
        return writer._rows(text, text_pair, **options)

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """Return the text of one id, or of a row of ids in a list or any array of shape (tokens,).

        As in the original every bracketed word gets a blank before it, and ``<n>`` becomes a newline.

        Raises ValueError for an id that the vocabulary does not have.
        """
        text = super().decode(
            token_ids, skip_special_tokens, clean_up_tokenization_spaces, spaces_between_special_tokens
        )
        return self.rules.after(text)

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Return 1 for special tokens and 0 for others; the arguments are BigBirdTokenizer's."""
        if already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, token_ids_1, True)
        return [0] * (len(token_ids_0) + len(token_ids_1 or ())) + [1] * self.num_special_tokens_to_add()

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return 0 for every token: the model knows no token types."""
        return [0] * (len(token_ids_0) + len(token_ids_1 or ()) + self.num_special_tokens_to_add())

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many tokens a document has besides those of its text."""
        return int(self._ended)

    @property
    def _ended(self) -> bool:
        return self.end_documents if self._ends is None else self._ends

    def _framed(self, show: Callable[[str], Any], first: Sequence[Any], second: Sequence[Any] | None) -> list[Any]:
        return [*first, *(second or ()), *([show(self.eos_token)] if self._ended else [])]

    def _template(self) -> processors.TemplateProcessing:
        end = f" {self.eos_token}:0" if self._ended else ""
        tokens = [(self.eos_token, self.eos_token_id)] if end else []
        return processors.TemplateProcessing(single=f"$A:0{end}", pair=f"$A:0 $B:0{end}", special_tokens=tokens)

    def _encode(
        self, texts: list[Text], pairs: list[Text] | None, plan: Plan, add_special_tokens: bool, windows: bool
    ) -> tuple[list[Encoding], bool]:
        if self._ends is None:
            return super()._encode(texts, pairs, plan, add_special_tokens, windows)
        check_room(plan, 0, windows)
        self._backend.post_processor = self._template()
        try:
            whole = replace(plan, padding=None, truncation=None)
            rows, located = super()._encode(texts, pairs, whole, add_special_tokens, False)
        finally:
            self._ends = None
            self._backend.post_processor = self._template()
        return self._cut_and_padded(rows, plan), located

    def _cut_and_padded(self, rows: list[Encoding], plan: Plan) -> list[Encoding]:
        """Cut finished rows, their ends too, and pad them."""
        for row in rows if plan.truncation else ():
            row.truncate(plan.max_length, stride=plan.stride, direction=self.truncation_side)
        if plan.padding:
            longest = max(map(len, rows), default=0)
            length = plan.max_length if plan.padding == "max_length" and plan.max_length else longest
            length = -(-length // (plan.pad_to_multiple_of or 1)) * (plan.pad_to_multiple_of or 1)
            for row in rows:
                row.pad(length, direction=plan.padding_side, pad_id=self.pad_token_id, pad_token=self.pad_token)
        return rows

    def _make_special(self, token: Token, lstrip: bool = False) -> str:
        """Return a special token's text; of the vocabulary's pieces only the reserved ones are found in texts."""
        content = content_of(token)
        if content in self._pieces and content not in self._reserved:
            return content
        return super()._make_special(content if content in self._reserved else token)


def read_shifted(vocab_file: str | Path, offset: int) -> Vocabulary:
    """Read a vocabulary, with the tokens that transformers reserves where ``offset`` is not 0.

    Raises ValueError for an offset that there cannot be, and as read_vocabulary.
    """
    if offset != 0 and offset < 2:
        raise ValueError(f"offset is {offset!r}, expected 0 (the original's ids) or, as in plain Pegasus, 103")
    vocabulary = read_vocabulary(vocab_file)
    return shifted(vocabulary, reserved(offset)) if offset else vocabulary


def reserved(offset: int) -> list[str]:
    """The tokens that transformers puts behind padding and end, as many as ``offset``."""
    return ["<mask_1>", "<mask_2>", *(f"<unk_{number}>" for number in range(2, offset))][:offset]


def named_tokens(
    pieces: Sequence[str], offset: int, given: Mapping[str, Token | None], options: dict[str, Any]
) -> dict[str, Token]:
    """Return the special tokens by name: those that are given, and those that the vocabulary has.

    ``options`` get the reserved ones as additional special tokens.
    """
    defaults = DEFAULT_TOKENS | ({"mask_token": "<mask_2>"} if offset else {})
    tokens: dict[str, Token] = {}
    for name, default in defaults.items():
        token = given.get(name)
        known = name in _ALWAYS or (default in pieces and (not offset or name == "mask_token"))
        if token is not None or known:
            tokens[name] = default if token is None else token
    others = [token for token in reserved(offset) if token != content_of(tokens["mask_token"])] if offset else []
    options[ADDITIONAL] = [*others, *options.get(ADDITIONAL, ())]
    return tokens
