"""Tokenizer folders as transformers reads and writes them: settings, special tokens and the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbird_port.json_object import read_json_object
from bigbird_port.out_folder import check_out
from bigbird_port.reading import is_there
from bigbird_port.tokenizers.plan import NO_LIMIT
from bigbird_port.tokenizers.special import DEFAULT_TOKENS
from bigbird_port.tokenizers.vocabulary import VOCAB_FILE

if TYPE_CHECKING:
    from bigbird_port.tokenizers.base import TokenizerBase

SETTINGS_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"

_OPTIONS = ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces", "sp_model_kwargs")


@dataclass(frozen=True)
class Settings:
    """What a folder says about its tokenizer: constructor arguments, and tokens beyond the vocabulary's."""

    options: dict[str, Any]
    added: list[str]


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


def write_settings(path: Path, tokenizer: TokenizerBase) -> list[str]:
    """Write tokenizer_config.json and special_tokens_map.json and return their paths."""
    tokens = {name: _entry(tokenizer, token) for name, token in tokenizer.special_tokens_map.items()}
    ids = sorted(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    settings: dict[str, Any] = {
        "added_tokens_decoder": {str(number): _entry(tokenizer, token) | {"special": True} for number, token in ids},
        **tokenizer.special_tokens_map,
        "clean_up_tokenization_spaces": tokenizer.clean_up_tokenization_spaces,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "sp_model_kwargs": getattr(tokenizer, "sp_model_kwargs", {}),
        # One name for both, from which AutoTokenizer finds the fast one too.
        "tokenizer_class": "BigBirdTokenizer",
    }
    if tokenizer.model_max_length < NO_LIMIT:
        settings["model_max_length"] = tokenizer.model_max_length
    return [_write_json(path / SETTINGS_FILE, settings), _write_json(path / SPECIAL_FILE, tokens)]


def read_settings(path: Path) -> Settings:
    """Read the settings of a folder, with defaults for files that it lacks; raises ValueError naming the file."""
    check_out(path)
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such folder: names of models on a hub are not looked up")
    special = _read_json(path / SPECIAL_FILE)
    values = _read_json(path / SETTINGS_FILE)
    options = {name: values[name] for name in _OPTIONS if values.get(name) is not None}
    for name in DEFAULT_TOKENS:
        token = values.get(name, special.get(name))
        if token is not None:
            options[name] = _content(token)
    decoder = values.get("added_tokens_decoder") or {}
    extra = [*(values.get("additional_special_tokens") or []), *(special.get("additional_special_tokens") or [])]
    added = [*map(_content, decoder.values()), *map(_content, extra), *_read_json(path / "added_tokens.json")]
    return Settings(options, added)


def check_added(path: Path, added: Iterable[str], tokenizer: TokenizerBase) -> None:
    """Raise ValueError for tokens that were added to a folder's tokenizer beyond its vocabulary."""
    missing = [token for token in added if token not in tokenizer.get_vocab()]
    if missing:
        raise ValueError(
            f"{path}: adds {missing} to a vocabulary of {len(tokenizer)} pieces, for which BigBird has no embeddings: "
            "remove them, or load the folder with transformers"
        )


def _entry(tokenizer: TokenizerBase, token: str) -> dict[str, Any]:
    strip = token == tokenizer.mask_token
    return {"content": token, "lstrip": strip, "normalized": False, "rstrip": False, "single_word": False}


def _content(token: Any) -> str:
    return token["content"] if isinstance(token, Mapping) else token


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path) if is_there(path) else {}


def _write_json(path: Path, values: Mapping[str, Any]) -> str:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return str(path)
