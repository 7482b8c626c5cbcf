"""A tokenizer of the same kind with a vocabulary that is trained on other texts."""

from __future__ import annotations

import io
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken

from bigbird_port.tokenizers.added import Token, changed, content_of
from bigbird_port.tokenizers.base import TokenizerBase
from bigbird_port.tokenizers.special import ADDITIONAL, DEFAULT_TOKENS
from bigbird_port.tokenizers.vocabulary import VOCAB_FILE

Kind = TypeVar("Kind", bound=TokenizerBase)
_messages: Any = sentencepiece_model_pb2  # its classes are made at import, out of sight of the type checker
_KINDS = {1: "unigram", 2: "bpe"}
_CONTROL, _USER_DEFINED = 3, 4


class Trainable(TokenizerBase):
    """A tokenizer that knows its SentencePiece file, whose like can be trained."""

    @abstractmethod
    def _known_model(self) -> bytes:
        """The SentencePiece file; raises ValueError where there is none."""

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[Any],
        vocab_size: int,
        new_special_tokens: Sequence[Token] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Self:
        """Return a tokenizer with these settings and special tokens whose vocabulary is trained on other texts.

        text_iterator: texts, or lists of texts. special_tokens_map: new names of special tokens, by the old ones.
        options: of SentencePieceTrainer. Raises ValueError where there is no such vocabulary.
        """
        asked = (text_iterator, vocab_size, new_special_tokens, special_tokens_map, options)
        return _train_like(self, self._known_model(), *asked)


def _train_like(
    tokenizer: Kind,
    model: bytes,
    texts: Iterable[Any],
    vocab_size: int,
    new_special_tokens: Sequence[Token] | None,
    renamed: Mapping[str, str] | None,
    options: Mapping[str, Any],
) -> Kind:
    """Return a tokenizer with the settings and special tokens of ``tokenizer`` and a vocabulary of other texts.

    model: its SentencePiece file, whose settings count. texts: each a text, or a list of texts. options: of
    SentencePieceTrainer. Raises ValueError where sentencepiece cannot make vocab_size pieces of the texts.
    """
    renamed = dict(renamed or {})
    old: Any = _messages.ModelProto()
    old.ParseFromString(model)
    special = {
        name: _renamed(tokenizer.added_tokens_decoder[getattr(tokenizer, f"{name}_id")], renamed)
        for name in DEFAULT_TOKENS
    }
    further = [_renamed(token, renamed) for token in _additional(tokenizer)]
    further += [changed(_as_added(token), special=True) for token in new_special_tokens or ()]
    trained = _train(old, texts, vocab_size, special, further, renamed, options)
    settings: dict[str, Any] = {
        "model_max_length": tokenizer.model_max_length,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "clean_up_tokenization_spaces": tokenizer.clean_up_tokenization_spaces,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / VOCAB_FILE
        path.write_bytes(trained)
        made: Any = type(tokenizer)
        result: Kind = made(path, **special, **{ADDITIONAL: further}, **settings)
    plain = [token for token in tokenizer.added_tokens_decoder.values() if not token.special]
    result.add_tokens(plain)
    return result


def _train(
    old: Any,
    texts: Iterable[Any],
    vocab_size: int,
    special: Mapping[str, AddedToken],
    further: Sequence[AddedToken],
    renamed: Mapping[str, str],
    options: Mapping[str, Any],
) -> bytes:
    """The new SentencePiece file."""
    spec = old.trainer_spec
    symbols = {
        kind: [renamed.get(piece.piece, piece.piece) for piece in old.pieces if piece.type == kind]
        for kind in (_CONTROL, _USER_DEFINED)
    }
    numbered = {
        f"{name}_piece": renamed.get(getattr(spec, f"{name}_piece"), getattr(spec, f"{name}_piece"))
        for name in ("unk", "pad", "bos", "eos")
        if getattr(spec, f"{name}_id") >= 0
    }
    named = [token.content for token in (*special.values(), *further)]
    own = dict.fromkeys([*symbols[_USER_DEFINED], *named])
    taken = {*numbered.values(), *symbols[_CONTROL]}
    model = io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": _KINDS.get(spec.model_type, "unigram"),
        "vocab_size": vocab_size,
        "hard_vocab_limit": False,
        "character_coverage": spec.character_coverage or 1.0,
        "normalization_rule_name": old.normalizer_spec.name or "identity",
        **{f"{name}_id": getattr(spec, f"{name}_id") for name in ("unk", "pad", "bos", "eos")},
        **numbered,
        "control_symbols": [symbol for symbol in symbols[_CONTROL] if symbol not in numbered.values()],
        "user_defined_symbols": [symbol for symbol in own if symbol not in taken],
        "num_threads": 1,
        "minloglevel": 2,
    }
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_flat(texts), model_writer=model, **settings | dict(options)
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"train_new_from_iterator: sentencepiece makes no vocabulary of {vocab_size} pieces of these texts: {error}"
        ) from None
    return model.getvalue()


def _flat(texts: Iterable[Any]) -> Iterable[str]:
    for given in texts:
        yield from [given] if isinstance(given, str) else given


def _additional(tokenizer: TokenizerBase) -> list[AddedToken]:
    return [tokenizer.added_tokens_decoder[number] for number in tokenizer.additional_special_tokens_ids]


def _renamed(token: AddedToken, names: Mapping[str, str]) -> AddedToken:
    return changed(token, content=names.get(token.content, token.content))


def _as_added(token: Token) -> AddedToken:
    return token if isinstance(token, AddedToken) else AddedToken(content_of(token), normalized=False)
