"""The tokenizer of a source, decided once, and written beside converted weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from bigbird_port.tokenizers import folder
from bigbird_port.tokenizers.added import attributes_of
from bigbird_port.tokenizers.base import TokenizerBase
from bigbird_port.tokenizers.calls.plan import NO_LIMIT
from bigbird_port.tokenizers.fast import BigBirdTokenizerFast, LibraryTokenizer
from bigbird_port.tokenizers.pegasus.fast import BigBirdPegasusTokenizerFast
from bigbird_port.tokenizers.pegasus.slow import BigBirdPegasusTokenizer
from bigbird_port.tokenizers.slow import BigBirdTokenizer, SentencePieceTokenizer
from bigbird_port.tokenizers.special import DEFAULT_TOKENS
from bigbird_port.tokenizers.vocabulary import read_vocabulary

SETTINGS_FILES = (folder.SETTINGS_FILE, folder.SPECIAL_FILE, folder.ADDED_FILE, folder.TOKENIZER_FILE)
_KINDS: dict[str, tuple[type[SentencePieceTokenizer], type[LibraryTokenizer]]] = {
    "BigBirdTokenizer": (BigBirdTokenizer, BigBirdTokenizerFast),
    "BigBirdPegasusTokenizer": (BigBirdPegasusTokenizer, BigBirdPegasusTokenizerFast),
}
_SHOWN = 8  # tokens that a sentence names


@dataclass(frozen=True)
class CarriedTokenizer:
    """The tokenizer of a source: slow, fast or both; with neither, no tokenizer is written, and ``notes`` say why.

    others: settings that only transformers reads. added: tokens beyond the vocabulary's pieces and the special tokens
    among these, by id.
    """

    slow: SentencePieceTokenizer | None
    fast: LibraryTokenizer | None
    others: Mapping[str, Any]
    added: Mapping[int, AddedToken]
    notes: tuple[str, ...]

    def write(self, target: Path) -> list[str]:
        """Write the tokenizer's files into an existing folder and return their names, sorted."""
        first: TokenizerBase | None = self.slow or self.fast
        if first is None:
            return []
        paths = folder.write_settings(target, first, self.others)
        if self.slow:
            paths += self.slow.save_vocabulary(target)
        if self.fast:
            paths.append(self.fast.save_library(target))
        return sorted(Path(path).name for path in paths)

    def flags(self, flags: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the original's flags that the tokenizer decides."""
        first: TokenizerBase | None = self.slow or self.fast
        settings = first.own_settings if first else {}
        return {name: value or None for name, value in settings.items() if name in flags}

    def records(self) -> list[dict[str, Any]]:
        """What the manifest says of the added tokens."""
        return [{"id": number, **attributes_of(token)} for number, token in self.added.items()]


def carry_tokenizer(
    vocabulary: Path | None,
    beside: Path,
    model_max_length: int | None = None,
    embeddings: int | None = None,
    former_length: int | None = None,
    kind: str = "BigBirdTokenizer",
    told: Mapping[str, Any] | None = None,
) -> CarriedTokenizer:
    """Read the tokenizer of a SentencePiece file, or of tokenizer.json where there is none, with its settings.

    beside: the folder of the settings and added tokens. model_max_length (tokens): the model's longest row; it counts
    where the settings have none, or that of the model before its positions were extended (former_length).
    embeddings: the number of the model's word embeddings. kind: the slow class. told: settings for a folder without.

    Raises ValueError if a file cannot be read or contradicts another, or the model has no embedding for a piece or
    an added token. A kind of tokenizer that is not the family's raises nothing: it is told in ``notes``.
    """
    slow_class, fast_class = _KINDS[kind]
    settings = slow_class.read_settings(beside)
    options, notes = (
        {**{name: value for name, value in (told or {}).items() if name in slow_class.own_options}, **settings.options},
        list[str](),
    )
    if model_max_length and options.get("model_max_length", NO_LIMIT) in (former_length, *_no_limits(options)):
        options["model_max_length"] = model_max_length
    if settings.kind.removesuffix("Fast") not in ("", slow_class.peer, "PreTrainedTokenizer"):
        reason = f"{beside / folder.SETTINGS_FILE} names {settings.kind}, whose rows or ids are not {kind}'s"
        return _none(f"{reason}: take the tokenizer from there, with transformers")
    if vocabulary:
        _check_pieces(vocabulary, len(read_vocabulary(vocabulary).pieces), embeddings)
        slow, fast = _from_vocabulary(vocabulary, options, notes, kind)
    else:
        slow, fast = None, _from_library(fast_class, beside, options, notes)
    first: TokenizerBase | None = slow or fast
    if first is None:
        return _none(*notes)
    added = _beyond(first)
    _check_embeddings(beside, first, embeddings)
    if added:
        notes.append(f"added tokens carried: {listing(added)}")
    if settings.others.get("split_special_tokens"):
        notes.append("split_special_tokens is carried, but only transformers follows it")
    return CarriedTokenizer(slow, fast, settings.others, added, tuple(notes))


def write_tokenizer_files(
    vocab_file: Path,
    target: Path,
    model_max_length: int | None = None,
    embeddings: int | None = None,
    kind: str = "BigBirdTokenizer",
) -> list[str]:
    """Write the tokenizer of a vocabulary into a folder, for this package and for transformers' AutoTokenizer.

    Returns the names of the files: spiece.model (the same bytes), tokenizer.json (where the tokenizers library gives
    sentencepiece's ids), tokenizer_config.json and special_tokens_map.json. Settings and added tokens are those beside
    the vocabulary. ``model_max_length`` (tokens) is the model's longest row, ``embeddings`` the number of its word
    embeddings, where they are known. kind: the slow class, "BigBirdTokenizer" or "BigBirdPegasusTokenizer".

    Raises ValueError if the vocabulary cannot be read, is not of that kind or has more pieces than the model, or the
    folder cannot be written.
    """
    carried = carry_tokenizer(vocab_file, vocab_file.absolute().parent, model_max_length, embeddings, kind=kind)
    if carried.slow is None:
        raise ValueError(f"{vocab_file}: {'; '.join(carried.notes)}")
    return carried.write(target)


def listing(added: Mapping[int, AddedToken]) -> str:
    """Name added tokens with their ids, the first few of many."""
    named = [f"{token.content!r} ({number})" for number, token in list(added.items())[:_SHOWN]]
    more = f" and {len(added) - _SHOWN} more" if len(added) > _SHOWN else ""
    return ", ".join(named) + more


def _from_vocabulary(
    vocabulary: Path, options: dict[str, Any], notes: list[str], kind: str
) -> tuple[SentencePieceTokenizer | None, LibraryTokenizer | None]:
    slow_class, fast_class = _KINDS[kind]
    try:
        slow = slow_class.of_vocabulary(vocabulary, options)
    except ValueError as error:
        notes.append(str(error))
        return None, None
    try:
        return slow, fast_class.of_vocabulary(vocabulary, options)
    except ValueError as error:
        notes.append(
            f"only the slow tokenizer is written, without {folder.TOKENIZER_FILE}, because {error}; transformers' "
            "AutoTokenizer makes a fast one itself, of other ids in part: give it use_fast=False"
        )
        return slow, None


def _from_library(
    fast_class: type[LibraryTokenizer], beside: Path, options: dict[str, Any], notes: list[str]
) -> LibraryTokenizer | None:
    try:
        fast = fast_class.of_library(beside / folder.TOKENIZER_FILE, options)
    except ValueError as error:
        notes.append(str(error))
        return None
    notes.append(
        f"only the fast tokenizer is written, from {folder.TOKENIZER_FILE}: the slow one needs a SentencePiece file "
        "(spiece.model), and there is none"
    )
    return fast


def _beyond(tokenizer: TokenizerBase) -> dict[int, AddedToken]:
    named = {tokenizer.special_tokens_map.get(name) for name in DEFAULT_TOKENS}
    return {
        number: token
        for number, token in tokenizer.added_tokens_decoder.items()
        if number >= tokenizer.vocab_size or token.content not in named
    }


def _check_pieces(vocabulary: Path, pieces: int, embeddings: int | None) -> None:
    if embeddings is not None and pieces > embeddings:
        raise ValueError(
            f"{vocabulary}: it has {pieces} pieces, but the model has {embeddings} word embeddings: give "
            "the vocabulary that the model was trained with"
        )


def _check_embeddings(beside: Path, tokenizer: TokenizerBase, embeddings: int | None) -> None:
    _check_pieces(beside / folder.TOKENIZER_FILE, tokenizer.vocab_size, embeddings)
    without = {
        number: token
        for number, token in tokenizer.added_tokens_decoder.items()
        if embeddings is not None and number >= embeddings
    }
    if without:
        raise ValueError(
            f"{beside}: its tokenizer adds {listing(without)}, but the model has {embeddings} word embeddings: resize "
            "them (resize_token_embeddings), or remove these tokens from the tokenizer's files"
        )


def _none(*reasons: str) -> CarriedTokenizer:
    return CarriedTokenizer(None, None, {}, {}, (f"no tokenizer is written, because {'; '.join(reasons)}",))


def _no_limits(options: Mapping[str, Any]) -> tuple[Any, ...]:
    given = options.get("model_max_length", NO_LIMIT)
    return (given,) if given >= NO_LIMIT else ()
