"""BigBirdTokenizerFast: the tokenizers library cuts the text, and knows the offset of every token.

Its ids are those of BigBirdTokenizer, and so of sentencepiece. transformers' BigBirdTokenizerFast, which has the
same tokens, offsets and words elsewhere, gives other ids than its own slow tokenizer for:

* white space other than spaces at the end of a text and before special tokens: it drops what sentencepiece keeps,
  as an unknown token.
* a space before <unk>: it keeps what sentencepiece drops.
* user-defined pieces of the vocabulary (<t>, <sep_0>, ...) inside text: it puts a space before what follows and
  none before the piece.
* the character U+2581 in the text: it takes it for a space that is there already.
* the three pieces with U+2581 inside: it never reaches them.
* U+001C to U+001F before [MASK], which its slow tokenizer strips; here both keep them (see ``slow``).

Decoded text has transformers' slow form, a space between text and special tokens other than [SEP] and [MASK];
tokenizer.json, which the library itself decodes with, gives transformers' fast form. A text too short for
its truncation strategy and a stride that leaves no step raise ValueError; return_length of one text is one number.
An empty second text makes a pair, as in transformers' slow one; its fast one takes it for none.
get_special_tokens_mask of a finished row marks all special ids, as transformers' slow one does.

sentencepiece adds scores in single precision and the library in double, so that segmentations of equal
likelihood could be chosen differently by a vocabulary with scores; BigBird's has none (all are 0).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import AddedToken, Encoding

from bigbird_port.files.reading import is_there, read_text, read_whole, why_unread
from bigbird_port.tokenizers import folder
from bigbird_port.tokenizers.added import Token, content_of
from bigbird_port.tokenizers.base import TokenizerBase
from bigbird_port.tokenizers.calls.inputs import Text
from bigbird_port.tokenizers.folder import TOKENIZER_FILE
from bigbird_port.tokenizers.pipeline import build_pipeline, check_same
from bigbird_port.tokenizers.trained import Trainable
from bigbird_port.tokenizers.vocabulary import VOCAB_FILE, Vocabulary, load_processor, not_cut, read_vocabulary


class LibraryTokenizer(TokenizerBase):
    """A tokenizer on the tokenizers library, of a vocabulary or of a tokenizer.json.

    ``tokenizer_file``, where given, is used as it is; ``vocabulary`` then only serves save_vocabulary.

    Raises ValueError for a file that cannot be read, a token it does not have, or an unknown argument.
    """

    is_fast: ClassVar[bool] = True

    def __init__(
        self,
        vocabulary: Vocabulary | None,
        tokenizer_file: str | Path | None,
        tokens: Mapping[str, Token],
        options: dict[str, Any],
    ) -> None:
        self._as_it_is = tokenizer_file is not None
        if tokenizer_file is not None:
            backend = self._read_backend(Path(tokenizer_file))
            options["added_tokens_decoder"] = _both(Path(tokenizer_file), backend, options)
        elif vocabulary is not None:
            added = [*tokens.values(), *(options.get("added_tokens_decoder") or {}).values()]
            added += options.get("additional_special_tokens") or ()
            backend = self._build(vocabulary, [content_of(token) for token in added])
        else:
            raise ValueError(f"{type(self).__name__} needs a vocab_file ({VOCAB_FILE}) or a tokenizer_file: give one")
        super().__init__(backend, backend.get_vocab(with_added_tokens=False), tokens, **options)
        self.vocab_file = None if vocabulary is None else str(vocabulary.path)
        self._model = None if vocabulary is None else vocabulary.model

    @abstractmethod
    def _build(self, vocabulary: Vocabulary, added: list[str]) -> tokenizers.Tokenizer:
        """Return the pipeline of a vocabulary; added: the tokens that are found before it."""

    @classmethod
    @abstractmethod
    def of_library(cls, file: Path, options: dict[str, Any]) -> Self:
        """Return the tokenizer of a tokenizer.json with the settings of its folder; raises ValueError as the class."""

    @classmethod
    @abstractmethod
    def _check_rows(cls, path: Path, row: Encoding) -> None:
        """Raise ValueError unless tokenizer.json made this row of two empty texts as the class would."""

    @property
    def backend_tokenizer(self) -> tokenizers.Tokenizer:
        """The library's tokenizer."""
        return self._backend

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """Return the tokens of a text; ``pair`` follows in the same list."""
        row = self(text, pair, add_special_tokens=add_special_tokens)
        # The library shows added tokens with the space they took, and unknown characters as themselves.
        known = set(self._added) - {self.unk_token_id}
        shown = zip(row.tokens(), row["input_ids"], strict=True)
        return [self._token(token_id) if token_id in known else token for token, token_id in shown]

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str]:
        """Write the SentencePiece file, the bytes that were read, into an existing folder and return its path.

        Raises ValueError if there is no such folder, or the tokenizer was made from tokenizer.json alone.
        """
        return (folder.write_vocabulary(save_directory, filename_prefix, self._known_model()),)

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write the tokenizer's files, with tokenizer.json, and spiece.model where it is known; return their paths.

        Raises ValueError if the folder cannot be written.
        """
        target = folder.make_folder(save_directory)
        vocabulary = () if self._model is None else self.save_vocabulary(target)
        return (*folder.write_settings(target, self), *vocabulary, self.save_library(target))

    def save_library(self, target: Path) -> str:
        """Write tokenizer.json into an existing folder and return its path."""
        file = target / TOKENIZER_FILE
        file.write_text(self._backend.to_str(pretty=True) + "\n", encoding="utf-8")
        return str(file)

    def _known_model(self) -> bytes:
        """The SentencePiece file; raises ValueError where there is none."""
        if self._model is None:
            raise ValueError(
                f"the tokenizer was loaded from {TOKENIZER_FILE} alone, which does not hold the SentencePiece file: "
                "give vocab_file too"
            )
        return self._model

    def _changed(self) -> None:
        self._backend.add_tokens(list(self._added.values()))
        for number, token in self._added.items():
            found = self._backend.token_to_id(token.content)
            if found != number:
                raise ValueError(
                    f"the added token {token.content!r} has id {number}, but the tokenizers library gives it {found}: "
                    "it takes the ids of added tokens from their order and knows no gaps; use "
                    f"{type(self).__name__.removesuffix('Fast')}"
                )
        super()._changed()

    def _admitted(self, token: AddedToken) -> AddedToken:
        return token if self._as_it_is else super()._admitted(token)

    def _backend_input(self, given: Text) -> Text:
        return given

    @classmethod
    def _load(cls, path: Path, options: dict[str, Any]) -> Self:
        # A tokenizer.json that transformers wrote gives its fast ids, so the vocabulary goes first.
        if is_there(path / VOCAB_FILE) or not is_there(path / TOKENIZER_FILE):
            return cls.of_vocabulary(path / VOCAB_FILE, options)
        return cls.of_library(path / TOKENIZER_FILE, options)

    @classmethod
    def _read_backend(cls, path: Path) -> tokenizers.Tokenizer:
        try:
            backend = tokenizers.Tokenizer.from_str(read_text(path))
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {why_unread(error)}: give a {TOKENIZER_FILE}") from None
        except Exception as error:
            # The library raises Exception itself for whatever it cannot parse.
            kind = "JSON" if _is_json(path) else "text"
            raise ValueError(
                f"{path}: this {kind} is no {TOKENIZER_FILE} that the tokenizers library loads: {error}"
            ) from None
        # A call says itself how rows are cut and padded.
        backend.no_truncation()
        backend.no_padding()
        cls._check_rows(path, backend.encode("", ""))
        return backend


class BigBirdTokenizerFast(LibraryTokenizer, Trainable):
    """Tokenizer on the tokenizers library, built from spiece.model or loaded from tokenizer.json.

    ``tokenizer_file``, where given, is used as it is; ``vocab_file`` then only serves save_vocabulary. Other
    arguments: model_max_length (tokens), padding_side and truncation_side ("left" or "right"),
    clean_up_tokenization_spaces.

    Raises ValueError for a file that cannot be read, a token it does not have, or an unknown argument.
    """

    def __init__(
        self,
        vocab_file: str | Path | None = None,
        tokenizer_file: str | Path | None = None,
        unk_token: Token = "<unk>",
        bos_token: Token = "<s>",
        eos_token: Token = "</s>",
        pad_token: Token = "<pad>",
        sep_token: Token = "[SEP]",
        mask_token: Token = "[MASK]",
        cls_token: Token = "[CLS]",
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
        vocabulary = None if vocab_file is None else read_vocabulary(vocab_file)
        super().__init__(vocabulary, tokenizer_file, tokens, options)

    def _build(self, vocabulary: Vocabulary, added: list[str]) -> tokenizers.Tokenizer:
        pipeline = build_pipeline(vocabulary)
        if not vocabulary.as_original:
            check_same(pipeline, vocabulary, added, load_processor(vocabulary, {}).encode)
        return pipeline

    @classmethod
    def _check_rows(cls, path: Path, row: Encoding) -> None:
        if row.type_ids != [0, 0, 1] or row.ids[1] != row.ids[2]:
            raise ValueError(
                f"{path}: puts {row.tokens} around two texts, where BigBird's tokenizer has [CLS], [SEP], [SEP]: load "
                "it with transformers"
            )

    @classmethod
    def of_vocabulary(cls, vocabulary: Path, options: dict[str, Any]) -> Self:
        """Return the tokenizer of a SentencePiece file with the settings of a folder; raises ValueError as the class.

        User-defined pieces that the folder lists are left to the pipeline.
        """
        added = not_cut(options.get("added_tokens_decoder", {}), vocabulary)
        return cls(vocabulary, **of_fast(options) | {"added_tokens_decoder": added})

    @classmethod
    def of_library(cls, file: Path, options: dict[str, Any]) -> Self:
        """Return the tokenizer of a tokenizer.json with the settings of its folder; raises ValueError as the class."""
        return cls(tokenizer_file=file, **of_fast(options))


def _both(path: Path, backend: tokenizers.Tokenizer, options: dict[str, Any]) -> dict[int, AddedToken]:
    """The added tokens of tokenizer.json and those given beside it; raises ValueError where they differ."""
    own, given = backend.get_added_tokens_decoder(), dict(options.get("added_tokens_decoder") or {})
    ids = {token.content: number for number, token in own.items()}
    for number, token in given.items():
        if ids.get(token.content, number) != number or (number in own and own[number].content != token.content):
            raise ValueError(
                f"{path}: has {own.get(number, token).content!r} with id {ids.get(token.content, number)}, but beside "
                f"it {token.content!r} has id {number}: keep the one that the model was trained with"
            )
    return own | given


def _is_json(path: Path) -> bool:
    try:
        json.loads(read_whole(path))
    except ValueError:
        return False
    return True


def of_fast(options: dict[str, Any]) -> dict[str, Any]:
    """Settings without those of sentencepiece."""
    return {name: value for name, value in options.items() if name != "sp_model_kwargs"}
