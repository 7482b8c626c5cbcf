"""Tokenizer folders as transformers reads and writes them: settings, special tokens and the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken

from bigbird_port.files.json_object import read_json_object, refuse_stand_in
from bigbird_port.files.outputs.out_folder import check_out
from bigbird_port.files.reading import is_there, read_whole
from bigbird_port.tokenizers.added import attributes_of, changed
from bigbird_port.tokenizers.calls.plan import NO_LIMIT
from bigbird_port.tokenizers.special import ADDITIONAL, DEFAULT_TOKENS
from bigbird_port.tokenizers.vocabulary import VOCAB_FILE

if TYPE_CHECKING:
    from bigbird_port.tokenizers.base import TokenizerBase

SETTINGS_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
TOKENIZER_FILE = "tokenizer.json"
DECODER = "added_tokens_decoder"

_OPTIONS = ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces", "sp_model_kwargs")
_ATTRIBUTES = ("content", "lstrip", "rstrip", "single_word", "normalized", "special")
# Written anew, or true of the folder that was read alone.
_OWN = (
    DECODER,
    *DEFAULT_TOKENS,
    *_OPTIONS,
    "auto_map",
    "extra_special_tokens",
    "name_or_path",
    "special_tokens_map_file",
    "tokenizer_class",
    "tokenizer_file",
    "vocab_file",
)


@dataclass(frozen=True)
class Settings:
    """What a folder says about its tokenizer.

    options: constructor arguments, added tokens among them. others: settings that only transformers reads. kind: the
    class that it names, or nothing.
    """

    options: dict[str, Any]
    others: dict[str, Any]
    kind: str


def make_folder(path: str | Path) -> Path:
    """Make a folder where it is missing; raises ValueError if that cannot be."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{path}: cannot be made a folder: {error.strerror}: choose another name") from None
    return path


def write_vocabulary(path: str | Path, prefix: str | None, model: bytes) -> str:
    """Write the SentencePiece file into an existing folder; raises ValueError if there is none."""
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder: make it first, or use save_pretrained")
    file = folder / (f"{prefix}-{VOCAB_FILE}" if prefix else VOCAB_FILE)
    file.write_bytes(model)
    return str(file)


def write_settings(path: Path, tokenizer: TokenizerBase, others: Mapping[str, Any] | None = None) -> list[str]:
    """Write tokenizer_config.json, special_tokens_map.json and, where ids are new, added_tokens.json; return paths.

    others: settings beyond this package's, which only transformers reads.
    """
    added, listed = tokenizer.added_tokens_decoder, tokenizer.listed_tokens
    ids = tokenizer.get_vocab()
    tokens: dict[str, Any] = {}
    for name, named in tokenizer.special_tokens_map.items():
        entries = [_entry(listed[ids[token]]) for token in ([named] if isinstance(named, str) else named)]
        tokens[name] = entries[0] if isinstance(named, str) else entries
    settings: dict[str, Any] = {
        **(others or {}),
        DECODER: {str(number): attributes_of(token) for number, token in listed.items()},
        **tokenizer.special_tokens_map,
        **tokenizer.own_settings,
        "clean_up_tokenization_spaces": tokenizer.clean_up_tokenization_spaces,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "sp_model_kwargs": getattr(tokenizer, "sp_model_kwargs", {}),
        # One name for both, from which AutoTokenizer finds the fast one too.
        "tokenizer_class": tokenizer.peer,
    }
    if tokenizer.model_max_length < NO_LIMIT:
        settings["model_max_length"] = tokenizer.model_max_length
    new = {token.content: number for number, token in added.items() if number >= tokenizer.vocab_size}
    written = [_write_json(path / SETTINGS_FILE, settings), _write_json(path / SPECIAL_FILE, tokens)]
    return [*written, *([_write_json(path / ADDED_FILE, new)] if new else [])]


def read_settings(path: Path, own: Sequence[str] = ()) -> Settings:
    """Read the settings of a folder, with defaults for files that it lacks; raises ValueError naming the file.

    own: settings that are constructor arguments, beside those of all tokenizers.
    """
    check_out(path)
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such folder: names of models on a hub are not looked up")
    values, special = _read_json(path / SETTINGS_FILE), _read_json(path / SPECIAL_FILE)
    options = {name: values[name] for name in (*_OPTIONS, *own) if values.get(name) is not None}
    added = read_added(path)
    by_content = {token.content: token for token in added.values()}
    # transformers' order: special_tokens_map.json counts where there is no list of all added tokens.
    first, second = (values, special) if values.get(DECODER) else (special, values)
    for name in DEFAULT_TOKENS:
        token = first.get(name, second.get(name))
        if token is not None:
            given = as_token(path / SETTINGS_FILE, name, token)
            lstrip = given.lstrip or (name == "mask_token" and isinstance(token, str))
            options[name] = by_content.get(given.content, changed(given, special=True, lstrip=lstrip))
    extra = values.get("extra_special_tokens") or {}
    additional = [
        *_listed(path / SETTINGS_FILE, values.get(ADDITIONAL)),
        *_listed(path / SPECIAL_FILE, special.get(ADDITIONAL)),
        *_listed(path / SETTINGS_FILE, list(extra.values()) if isinstance(extra, dict) else extra),
    ]
    listed = {token.content for token in _listed(path / SETTINGS_FILE, values.get(ADDITIONAL))}
    for token in _listed(path / SPECIAL_FILE, special.get(ADDITIONAL)):
        if values.get(DECODER) and token.content not in by_content and token.content not in listed:
            raise ValueError(
                f"{path / SPECIAL_FILE}: has {token.content!r} among its {ADDITIONAL}, which {SETTINGS_FILE} "
                "lacks, and that is what transformers takes: correct one of them, or save the tokenizer again"
            )
    distinct = {token.content: by_content.get(token.content, token) for token in additional}
    others = {name: value for name, value in values.items() if name not in (*_OWN, *own, *options, ADDITIONAL)}
    return Settings(
        options | {"added_tokens_decoder": added, ADDITIONAL: list(distinct.values())},
        others,
        str(values.get("tokenizer_class") or ""),
    )


def read_added(path: Path) -> dict[int, AddedToken]:
    """Return the added tokens that a folder's files list, by id.

    tokenizer_config.json has all of them, or, where transformers is old, added_tokens.json their ids;
    tokenizer.json has those of the fast tokenizer. Raises ValueError where they contradict each other.
    """
    values, special = _read_json(path / SETTINGS_FILE), _read_json(path / SPECIAL_FILE)
    old = _read_json(path / ADDED_FILE)
    found: dict[int, AddedToken] = {}
    for number, token in (values.get(DECODER) or {}).items():
        _insert(found, path / SETTINGS_FILE, number, as_token(path / SETTINGS_FILE, DECODER, token))
    named = [values.get(name, special.get(name)) for name in DEFAULT_TOKENS]
    specials = [*named, *(values.get(ADDITIONAL) or []), *(special.get(ADDITIONAL) or [])]
    by_content = {
        token.content: token for token in (as_token(path / SPECIAL_FILE, ADDITIONAL, one) for one in specials if one)
    }
    ids = {token.content: number for number, token in found.items()}
    for content, number in old.items():
        if values.get(DECODER) and ids.get(content) != number:
            has = f"with id {ids[content]}" if content in ids else "not at all"
            raise ValueError(
                f"{path / ADDED_FILE}: has {content!r} with id {number}, which {SETTINGS_FILE} has {has} in its "
                f"{DECODER}, which is what transformers takes: correct one of them, or save the tokenizer again"
            )
        token = by_content.get(content)
        token = changed(token, special=True) if token else AddedToken(content)
        _insert(found, path / ADDED_FILE, number, token)
    for number, token in _library_tokens(path / TOKENIZER_FILE).items():
        _insert(found, path / TOKENIZER_FILE, number, token)
    return found


def as_token(path: Path, name: str, value: Any) -> AddedToken:
    """Return a token as transformers writes it, a text or a dictionary; raises ValueError naming file and entry."""
    if isinstance(value, str):
        return AddedToken(value, normalized=False)
    known = {name: value[name] for name in _ATTRIBUTES if name in value} if isinstance(value, Mapping) else {}
    content = known.pop("content", None)
    if not isinstance(content, str) or not content or not all(isinstance(one, bool) for one in known.values()):
        raise ValueError(f"{path}: {name} holds {value!r}, expected a token: a text, or a dictionary with its content")
    return AddedToken(content, **known)


def _listed(path: Path, tokens: Any) -> list[AddedToken]:
    if not isinstance(tokens, list | None):
        raise ValueError(f"{path}: {ADDITIONAL} is {tokens!r}, expected a list of tokens")
    return [changed(as_token(path, ADDITIONAL, token), special=True) for token in tokens or []]


def _insert(found: dict[int, AddedToken], path: Path, number: Any, token: AddedToken) -> None:
    """Add a token of a file to those of others; the first file's attributes count, and the ids must agree."""
    if not str(number).isdecimal():
        raise ValueError(f"{path}: the added token {token.content!r} has id {number!r}, expected a whole number")
    number = int(number)
    ids = {one.content: place for place, one in found.items()}
    if ids.get(token.content, number) != number or found.setdefault(number, token).content != token.content:
        raise ValueError(
            f"{path}: has {token.content!r} with id {number}, where another file of the folder has "
            f"{found.get(number, token).content!r} with id {ids.get(token.content, number)}: keep the one that the "
            "model was trained with"
        )


def _library_tokens(path: Path) -> dict[int, AddedToken]:
    """The added tokens of a tokenizer.json, which is too large for the reader of settings."""
    if not is_there(path):
        return {}
    data = read_whole(path)
    refuse_stand_in(path, data, f"a {TOKENIZER_FILE}")
    try:
        values = json.loads(data)["added_tokens"]
        return {one["id"]: as_token(path, "added_tokens", one) for one in values}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: its added_tokens cannot be read: {error}: expected what transformers wrote"
        ) from None


def _entry(token: AddedToken) -> dict[str, Any]:
    return {name: value for name, value in attributes_of(token).items() if name != "special"}


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path) if is_there(path) else {}


def _write_json(path: Path, values: Mapping[str, Any]) -> str:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return str(path)
