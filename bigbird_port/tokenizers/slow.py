"""BigBirdTokenizer: sentencepiece cuts the text between special tokens.

Where it differs from transformers' BigBirdTokenizer, and why:

* return_overflowing_tokens gives windows, as both fast tokenizers do, instead of one row and a list of the ids
  left over; of a pair cut longest first, the longer text keeps the odd token (transformers: the first, when it
  is no longer than the second). One meaning for slow and fast.
* A text too short for the strategy (only_first, only_second), a strategy without a length, a special token that
  is not in the vocabulary: ValueError instead of a log message and a row that is too long or has no embedding.
* [MASK] takes the Unicode white space before it; transformers' also takes the controls U+001C to U+001F, which
  Python calls white space and the tokenizers library does not.
* convert_tokens_to_string keeps the space after a special token that the next piece has, and puts in none where
  it has none.
* The token types of a pair without special tokens are 0 and 1, not an error; return_length counts padding in
  batches too; a row without any token is padded like others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import models

from bigbird_port.tokenizers import folder
from bigbird_port.tokenizers.base import TokenizerBase
from bigbird_port.tokenizers.inputs import Text
from bigbird_port.tokenizers.vocabulary import VOCAB_FILE, load_processor, read_vocabulary

# Unicode's White_Space; str.rstrip alone would also take U+001C to U+001F.
_WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


class BigBirdTokenizer(TokenizerBase):
    """Tokenizer on sentencepiece, with subword sampling through ``sp_model_kwargs``.

    ``sp_model_kwargs`` are SentencePieceProcessor's: enable_sampling, nbest_size (0 and 1: no sampling; more:
    among so many; negative: among all) and alpha. Other arguments: model_max_length (tokens), padding_side and
    truncation_side ("left" or "right"), clean_up_tokenization_spaces.

    Raises ValueError for a vocabulary that cannot be read, a token it does not have, or an unknown argument.
    """

    is_fast: ClassVar[bool] = False

    def __init__(
        self,
        vocab_file: str | Path,
        unk_token: str = "<unk>",
        bos_token: str = "<s>",
        eos_token: str = "</s>",
        pad_token: str = "<pad>",
        sep_token: str = "[SEP]",
        mask_token: str = "[MASK]",
        cls_token: str = "[CLS]",
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
        vocabulary = read_vocabulary(vocab_file)
        vocab = {piece: number for number, piece in enumerate(vocabulary.pieces)}
        # The pipeline gets the pieces that sentencepiece cut, and only looks them up.
        backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=vocabulary.pieces[vocabulary.unk_id]))
        super().__init__(backend, vocab, tokens, **options)
        self.vocab_file = str(vocab_file)
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self._vocabulary = vocabulary
        self.sp_model = load_processor(vocabulary, self.sp_model_kwargs)
        longest_first = sorted(self.all_special_tokens, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # Its own pickle would forget the sampling.
        del state["sp_model"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.sp_model = load_processor(self._vocabulary, self.sp_model_kwargs)

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """Return sentencepiece's pieces and the special tokens of a text; ``pair`` follows in the same list."""
        first = list(self._pieces(text))
        second = None if pair is None else list(self._pieces(pair))
        if not add_special_tokens:
            return first + (second or [])
        row = [self.cls_token, *first, self.sep_token]
        return row if second is None else [*row, *second, self.sep_token]

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str]:
        """Write the SentencePiece file, the bytes that were read, into an existing folder and return its path.

        Raises ValueError if there is no such folder.
        """
        return (folder.write_vocabulary(save_directory, filename_prefix, self._vocabulary.model),)

    def _backend_input(self, given: Text) -> Text:
        words = [given] if isinstance(given, str) else given
        return [piece for word in words for piece in self._pieces(word)]

    def _pieces(self, text: str) -> Iterator[str]:
        parts = self._special.split(text)
        # split alternates text and special tokens, beginning and ending with text.
        for place, part in enumerate(parts):
            if place % 2:
                yield part
            else:
                before_mask = parts[place + 1 : place + 2] == [self.mask_token]
                yield from self.sp_model.encode(part.rstrip(_WHITE_SPACE) if before_mask else part, out_type=str)

    @classmethod
    def _load(cls, path: Path, options: dict[str, Any]) -> Self:
        return cls(path / VOCAB_FILE, **options)
