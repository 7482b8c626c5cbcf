"""BigBirdTokenizer: the library finds added tokens, and sentencepiece cuts the text between them.

Where it differs from transformers' BigBirdTokenizer, and why:

* return_overflowing_tokens gives windows, as both fast tokenizers do, instead of one row and a list of the ids
  left over; of a pair cut longest first, the longer text keeps the odd token (transformers: the first, when it
  is no longer than the second). One meaning for slow and fast.
* A text too short for the strategy (only_first, only_second), a special token that is not in the vocabulary:
  ValueError instead of a log message and a row that is too long or has no embedding.
* [MASK] takes the Unicode white space before it; transformers' also takes the controls U+001C to U+001F, which
  Python calls white space and the tokenizers library does not.
* An added token that is a single word is not found beside letters, digits and underscores, as in the tokenizers
  library; transformers' slow one wants spaces there, and cuts the text at it all the same.
* A special token that is assigned (pad_token = eos_token) must be in the vocabulary, and then counts everywhere.
* convert_tokens_to_string keeps the space after a special token that the next piece has, and puts in none where
  it has none.
* The token types of a pair without special tokens are 0 and 1, not an error; return_length counts padding in
  batches too; a row without any token is padded like others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import AddedToken, models

from bigbird_port.tokenizers import folder
from bigbird_port.tokenizers.added import Token
from bigbird_port.tokenizers.base import TokenizerBase
from bigbird_port.tokenizers.calls.inputs import Text
from bigbird_port.tokenizers.trained import Trainable
from bigbird_port.tokenizers.vocabulary import VOCAB_FILE, Vocabulary, load_processor, not_cut, read_vocabulary


class SentencePieceTokenizer(TokenizerBase):
    """A tokenizer on sentencepiece; ``sp_model_kwargs`` are SentencePieceProcessor's.

    Raises ValueError for a vocabulary that sentencepiece does not take, a token it does not have, or an unknown
    argument.
    """

    is_fast: ClassVar[bool] = False

    def __init__(
        self,
        vocabulary: Vocabulary,
        tokens: Mapping[str, Token],
        sp_model_kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> None:
        pieces = {piece: number for number, piece in enumerate(vocabulary.pieces)}
        super().__init__(_rows_of(pieces.values()), pieces, tokens, **options)
        self.vocab_file = str(vocabulary.path)
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self._vocabulary = vocabulary
        self.sp_model = load_processor(vocabulary, self.sp_model_kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # Its own pickle would forget the sampling.
        del state["sp_model"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.sp_model = load_processor(self._vocabulary, self.sp_model_kwargs)

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """Return sentencepiece's pieces and the added tokens of a text; ``pair`` follows in the same list."""
        first = list(self._cut(text, str, self._token))
        second = None if pair is None else list(self._cut(pair, str, self._token))
        if not add_special_tokens:
            return first + (second or [])
        return self._framed(str, first, second)

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str]:
        """Write the SentencePiece file, the bytes that were read, into an existing folder and return its path.

        Raises ValueError if there is no such folder.
        """
        return (folder.write_vocabulary(save_directory, filename_prefix, self._known_model()),)

    def _known_model(self) -> bytes:
        """The SentencePiece file."""
        return self._vocabulary.model

    def _changed(self) -> None:
        self._backend = _rows_of(self._tokens)
        self._finder = _finder_of(self._added.values())
        super()._changed()

    def _backend_input(self, given: Text) -> Text:
        words = [given] if isinstance(given, str) else given
        return [str(number) for word in words for number in self._cut(word, int, int)]

    def _cut(self, text: str, kind: type, added: Callable[[int], Any]) -> Iterator[Any]:
        """Sentencepiece's pieces (``kind`` str) or their ids (int) between added tokens, which ``added`` shows."""
        place = 0
        numbers = list(self._added)
        row = self._finder.encode(text)
        for found, (start, end) in zip(row.ids, row.offsets, strict=True):
            if found:
                yield from self._pieces_of(text[place:start], kind)
                yield added(numbers[found - 1])
                place = end
        yield from self._pieces_of(text[place:], kind)

    def _pieces_of(self, text: str, kind: type) -> Iterable[Any]:
        """Sentencepiece's pieces (``kind`` str) or their ids (int) of a text without added tokens."""
        return self.sp_model.encode(text, out_type=kind)

    def _join(self, tokens: Sequence[str]) -> str:
        # sentencepiece itself knows what byte pieces and other rules for spaces mean.
        return super()._join(tokens) if self._vocabulary.plain else self.sp_model.decode(list(tokens)).strip()


class BigBirdTokenizer(SentencePieceTokenizer, Trainable):
    """Tokenizer on sentencepiece, with subword sampling through ``sp_model_kwargs``.

    ``sp_model_kwargs`` are SentencePieceProcessor's: enable_sampling, nbest_size (0 and 1: no sampling; more:
    among so many; negative: among all) and alpha. Other arguments: model_max_length (tokens), padding_side and
    truncation_side ("left" or "right"), clean_up_tokenization_spaces.

    Raises ValueError for a vocabulary that cannot be read, a token it does not have, or an unknown argument.
    """

    def __init__(
        self,
        vocab_file: str | Path,
        unk_token: Token = "<unk>",
        bos_token: Token = "<s>",
        eos_token: Token = "</s>",
        pad_token: Token = "<pad>",
        sep_token: Token = "[SEP]",
        mask_token: Token = "[MASK]",
        cls_token: Token = "[CLS]",
        sp_model_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        tokens = {
            "unk_token": unk_token,
            "bos_token": bos_token,
            "eos_token": eos_token,
            "pad_token": pad_token,
            "sep_token": sep_token,
            "mask_token": mask_token,
            "cls_token": cls_token,
        }
        super().__init__(read_vocabulary(vocab_file), tokens, sp_model_kwargs, options)

    @classmethod
    def _load(cls, path: Path, options: dict[str, Any]) -> Self:
        return cls.of_vocabulary(path / VOCAB_FILE, options)

    @classmethod
    def of_vocabulary(cls, vocabulary: Path, options: dict[str, Any]) -> Self:
        """Return the tokenizer of a SentencePiece file with the settings of a folder; raises ValueError as the class.

        User-defined pieces that the folder lists are left to sentencepiece.
        """
        added = not_cut(options.get("added_tokens_decoder", {}), vocabulary)
        return cls(vocabulary, **options | {"added_tokens_decoder": added})


def _rows_of(numbers: Iterable[int]) -> tokenizers.Tokenizer:
    """A pipeline for rows that are cut already: it takes the ids as words, and only looks them up."""
    return tokenizers.Tokenizer(models.WordLevel({str(number): number for number in numbers}, unk_token=""))


def _finder_of(added: Iterable[AddedToken]) -> tokenizers.Tokenizer:
    """A pipeline that finds added tokens: number ``i`` has id ``i + 1``, and all text between two of them is id 0."""
    finder = tokenizers.Tokenizer(models.WordLevel({"": 0}, unk_token=""))
    finder.add_tokens(list(added))
    return finder
