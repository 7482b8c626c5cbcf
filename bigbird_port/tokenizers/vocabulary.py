"""The SentencePiece model file: its pieces, and the settings that decide how text is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken

from bigbird_port.files.reading import read_whole, why_unread

VOCAB_FILE = "spiece.model"
SPACE = "\u2581"  # what sentencepiece writes for a space

_MAX_BYTES = 1 << 28  # BigBird's has 0.8 MB, the largest that are published some 10 MB
_UNIGRAM = 1
_NORMAL, _USER_DEFINED, _BYTE = 1, 4, 6
_messages: Any = sentencepiece_model_pb2  # its classes are made at import, out of sight of the type checker


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece model; piece and score number ``i`` belong to id ``i``.

    symbols: pieces that no text is cut into by their score: control, user-defined, unused and unknown ones.
    """

    path: Path
    model: bytes
    pieces: list[str]
    scores: list[float]
    user_defined: list[str]
    symbols: list[str]
    unk_id: int
    charsmap: bytes  # the normaliser's map of characters, empty for none
    plain: bool  # a unigram model, no byte pieces, spaces collapsed, one space put in front
    offset: int = 0  # how far the pieces behind padding and end are from their places in the file

    @property
    def as_original(self) -> bool:
        """Whether nothing is normalised and no piece is preferred, as in the vocabulary of the released models."""
        return not self.charsmap and not any(self.scores)


def shifted(vocabulary: Vocabulary, reserved: Sequence[str]) -> Vocabulary:
    """Return a vocabulary with tokens between its first two pieces, which are padding and end, and all others."""
    scores = vocabulary.scores
    return replace(
        vocabulary,
        pieces=[*vocabulary.pieces[:2], *reserved, *vocabulary.pieces[2:]],
        scores=[*scores[:2], *([min(scores)] * len(reserved)), *scores[2:]],
        unk_id=vocabulary.unk_id + len(reserved),
        offset=len(reserved),
    )


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read a SentencePiece model file.

    Raises ValueError naming the file if it is missing or no SentencePiece model.
    """
    path = Path(path)
    try:
        data = read_whole(path, _MAX_BYTES)
    except OSError as error:
        raise ValueError(
            f"{path}: the vocabulary cannot be read: {why_unread(error)}: give the {VOCAB_FILE} (or gpt2.model) "
            "that the checkpoint was trained with"
        ) from None
    model: Any = _messages.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        model.Clear()
    if not model.pieces or not model.HasField("trainer_spec"):
        raise ValueError(
            f"{path}: is not a SentencePiece model ({len(data)} bytes): expected a file such as gpt2.model"
        )
    return _vocabulary(path, data, model)


def not_cut(added: Mapping[int, AddedToken], vocabulary: Path) -> dict[int, AddedToken]:
    """Return the added tokens without those that transformers' fast tokenizer makes of user-defined pieces.

    sentencepiece finds these itself, and keeps the spaces beside them. What a user adds differs from them in an
    attribute.
    """
    pieces = set(read_vocabulary(vocabulary).user_defined)
    return {
        number: token
        for number, token in added.items()
        if token.content not in pieces
        or any((token.special, token.normalized, token.lstrip, token.rstrip, token.single_word))
    }


def load_processor(vocabulary: Vocabulary, options: Mapping[str, Any]) -> sentencepiece.SentencePieceProcessor:
    """Return the processor of a vocabulary; ``options`` are SentencePieceProcessor's, such as enable_sampling.

    Raises ValueError if sentencepiece does not take the options.
    """
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=vocabulary.model, **options)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"sp_model_kwargs: sentencepiece does not take {dict(options)!r} with {vocabulary.path}: {error}: use "
            "enable_sampling, nbest_size and alpha"
        ) from None


def _vocabulary(path: Path, data: bytes, model: Any) -> Vocabulary:
    normaliser, trainer = model.normalizer_spec, model.trainer_spec
    plain = (
        trainer.model_type == _UNIGRAM
        and normaliser.remove_extra_whitespaces
        and normaliser.add_dummy_prefix
        and normaliser.escape_whitespaces
        and not trainer.treat_whitespace_as_suffix
        and not trainer.byte_fallback
    )
    pieces = [piece.piece for piece in model.pieces]
    user_defined = [piece.piece for piece in model.pieces if piece.type == _USER_DEFINED]
    symbols = [piece.piece for piece in model.pieces if piece.type not in (_NORMAL, _BYTE)]
    scores = [piece.score for piece in model.pieces]
    charsmap = bytes(normaliser.precompiled_charsmap)
    return Vocabulary(path, data, pieces, scores, user_defined, symbols, trainer.unk_id, charsmap, plain)
