"""BigBirdPegasusTokenizerFast: the tokenizers library cuts the text, and knows the offset of every token.

Its ids are BigBirdPegasusTokenizer's, and so the original's. transformers' PegasusTokenizer, which is what it has for
these models, gives other ids, because it differs in this:

* it puts ``</s>`` behind documents too (``end_documents=True`` does so here).
* it makes a blank of a newline (``substitute_newline=""`` does so here).
* it keeps the blank before a bracketed word (``tight_brackets=False`` does so here).
* it finds special tokens that a text spells ("</s>", "[MASK]", ...), where the original cuts them as text, or as the
  pieces that they are, with the blanks beside them.

transformers' PegasusTokenizerFast moreover:

* puts a blank before the text behind a user-defined piece (``<n>``, ``<sep_0>``, ...), and drops those before it.
* takes the character U+2581 for a blank that is there already.
* takes U+0085, which sentencepiece does not know, for white space.
* normalises by graphemes: of a letter with several accents, or an accent behind a ligature, it changes another part
  than sentencepiece. The tokenizers library does so. Here such a text is cut by sentencepiece, and has no offsets.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Self

import tokenizers
from tokenizers import Encoding, processors

from bigbird_port.files.reading import read_text
from bigbird_port.tokenizers.added import Token
from bigbird_port.tokenizers.calls.inputs import Text
from bigbird_port.tokenizers.calls.plan import Plan
from bigbird_port.tokenizers.fast import LibraryTokenizer, of_fast
from bigbird_port.tokenizers.pegasus.rows import PegasusRows, named_tokens, read_shifted
from bigbird_port.tokenizers.pegasus.slow import BigBirdPegasusTokenizer, loaded_options
from bigbird_port.tokenizers.pipeline import build_pipeline, check_same
from bigbird_port.tokenizers.vocabulary import Vocabulary


class BigBirdPegasusTokenizerFast(PegasusRows, LibraryTokenizer):
    """Tokenizer of documents and summaries on the tokenizers library; the arguments are BigBirdPegasusTokenizer's.

    ``tokenizer_file``, where given without ``vocab_file``, is used as it is.

    Raises ValueError for a file that cannot be read, a token it does not have, or an unknown argument.
    """

    def __init__(
        self,
        vocab_file: str | Path | None = None,
        tokenizer_file: str | Path | None = None,
        pad_token: Token = "<pad>",
        eos_token: Token = "</s>",
        unk_token: Token = "<unk>",
        bos_token: Token | None = None,
        sep_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        *,
        offset: int = 0,
        substitute_newline: str | None = None,
        tight_brackets: bool = True,
        end_documents: bool = False,
        **options: Any,
    ) -> None:
        vocabulary = None if vocab_file is None else read_shifted(vocab_file, offset)
        pieces = vocabulary.pieces if vocabulary else _pieces_in(Path(tokenizer_file)) if tokenizer_file else []
        self._settle(pieces, offset, substitute_newline, tight_brackets, end_documents)
        given: dict[str, Any] = {
            "pad_token": pad_token,
            "eos_token": eos_token,
            "unk_token": unk_token,
            "bos_token": bos_token,
        }
        given |= {"sep_token": sep_token, "cls_token": cls_token, "mask_token": mask_token}
        tokens = named_tokens(pieces, offset, given, options)
        self._sentencepiece: BigBirdPegasusTokenizer | None = None
        if vocab_file is not None:
            self._sentencepiece = BigBirdPegasusTokenizer(
                vocab_file,
                **given,
                offset=offset,
                substitute_newline=substitute_newline,
                tight_brackets=tight_brackets,
                end_documents=end_documents,
            )
        super().__init__(vocabulary, tokenizer_file, tokens, options)

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """Return the tokens of a text; ``pair`` follows in the same list."""
        if self._sentencepiece and not (self._agrees(text) and self._agrees(pair or "")):
            return self._followed(self._sentencepiece).tokenize(text, pair, add_special_tokens)
        return super().tokenize(text, pair, add_special_tokens)

    def save_library(self, target: Path) -> str:
        """Write tokenizer.json into an existing folder and return its path; as transformers' it ends every row."""
        self._backend.post_processor = _ending(self)
        try:
            return super().save_library(target)
        finally:
            self._backend.post_processor = self._template()

    def _build(self, vocabulary: Vocabulary, added: list[str]) -> tokenizers.Tokenizer:
        as_text = set(vocabulary.symbols) - set(vocabulary.user_defined)
        pipeline = build_pipeline(vocabulary, self.rules.normalizers(), sorted(as_text))
        known = set(vocabulary.pieces) - self._reserved
        assert self._sentencepiece is not None
        slow = self._sentencepiece

        def expected(text: str) -> list[int] | None:
            return list(slow._pieces_of(text, int)) if _same_text(pipeline, slow, text) else None

        check_same(pipeline, vocabulary, [token for token in added if token not in known], expected)
        return pipeline

    def _encode(
        self, texts: list[Text], pairs: list[Text] | None, plan: Plan, add_special_tokens: bool, windows: bool
    ) -> tuple[list[Encoding], bool]:
        slow = self._sentencepiece
        if slow is None or all(map(self._agrees, (*texts, *(pairs or ())))):
            return super()._encode(texts, pairs, plan, add_special_tokens, windows)
        ends, self._ends = self._ends, None
        slow = self._followed(slow)
        slow._ends = ends
        return slow._encode(texts, pairs, plan, add_special_tokens, windows)

    def _agrees(self, text: Text) -> bool:
        """Whether the library normalises a text, and every part of it between added tokens, as sentencepiece does."""
        if not isinstance(text, str):
            return all(map(self._agrees, text))
        if text.isascii() or self._sentencepiece is None:
            return True
        between = "|".join(map(re.escape, self.added_tokens_encoder))
        parts = [text, *(re.split(between, text) if between else ())]
        return all(_same_text(self._backend, self._sentencepiece, part) for part in parts)

    def _followed(self, slow: BigBirdPegasusTokenizer) -> BigBirdPegasusTokenizer:
        """The slow tokenizer with this one's tokens and sides."""
        slow.truncation_side = self.truncation_side
        if (slow._added, slow._special) != (self._added, self._special):
            names = ("_added", "_vocab", "_tokens", "_special", "_additional")
            slow.__dict__.update({name: self.__dict__[name].copy() for name in names})
            slow._changed()
        return slow

    @classmethod
    def _check_rows(cls, path: Path, row: Encoding) -> None:
        if len(row) > 1:
            raise ValueError(
                f"{path}: puts {row.tokens} around two texts, where BigBird-Pegasus' tokenizer has an end alone: load "
                "it with transformers"
            )

    @classmethod
    def of_vocabulary(cls, vocabulary: Path, options: dict[str, Any]) -> Self:
        """Return the tokenizer of a SentencePiece file with the settings of a folder; raises ValueError as the class.

        Special tokens that the folder lists as added ones are named alone, where they are pieces.
        """
        found = read_shifted(vocabulary, options.get("offset", 0))
        return cls(vocabulary, **of_fast(loaded_options(options, found.pieces, found.symbols)))

    @classmethod
    def of_library(cls, file: Path, options: dict[str, Any]) -> Self:
        """Return the tokenizer of a tokenizer.json with the settings of its folder; raises ValueError as the class."""
        pieces = _pieces_in(file)
        return cls(tokenizer_file=file, **of_fast(loaded_options(options, pieces, pieces)))


def _same_text(pipeline: tokenizers.Tokenizer, slow: BigBirdPegasusTokenizer, text: str) -> bool:
    normal: str = slow.sp_model.normalize(slow.rules.before(text))
    return bool(pipeline.normalizer.normalize_str(text) == normal)


def _ending(tokenizer: BigBirdPegasusTokenizerFast) -> processors.TemplateProcessing:
    end = tokenizer.eos_token
    return processors.TemplateProcessing(
        single=f"$A:0 {end}:0", pair=f"$A:0 $B:0 {end}:0", special_tokens=[(end, tokenizer.eos_token_id)]
    )


def _pieces_in(path: Path) -> list[str]:
    """The pieces of a tokenizer.json; none where it cannot be read, which is told when it is loaded."""
    try:
        return [piece for piece, _ in json.loads(read_text(path))["model"]["vocab"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
