"""Inputs from real text, by the tokenizer of a converted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.files.reading import read_text
from bigbird_port.models.folder import read_folder_config
from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast
from parity.given.inputs import Inputs

_ARRAYS: dict[str, Any] = {"return_token_type_ids": True, "return_tensors": "np"}


def text_inputs(out: Path, text_file: Path, length: int | None) -> Inputs:
    """Return the inputs of one text, [1, L]: the whole file, cut to ``length`` or to what the model takes.

    Raises ValueError if the file or the model's tokenizer cannot be read.
    """
    tokenizer = _tokenizer(out)
    options: dict[str, Any] = {"truncation": True, "max_length": _limit(out, length)}
    encoding = tokenizer(_read(text_file), **options, **_ARRAYS)
    return _inputs(encoding)


def question_inputs(out: Path, question: str, context_file: Path, length: int | None) -> Inputs:
    """Return the inputs of a question and the text that answers it, [1, L], with question_lengths [1].

    The text is cut where the two are longer than ``length`` or than the model takes. Raises ValueError as text_inputs.
    """
    tokenizer, context = _tokenizer(out), _read(context_file)
    encoding = tokenizer(question, context, truncation="only_second", max_length=_limit(out, length), **_ARRAYS)
    prefix = tokenizer(question)["input_ids"]  # [CLS] question [SEP]
    return _inputs(encoding) | {"question_lengths": np.array([len(prefix)], np.int32)}


def _tokenizer(out: Path) -> BigBirdTokenizer | BigBirdTokenizerFast:
    folder = out / "torch" if (out / "torch").is_dir() else out
    only_fast = (folder / "tokenizer.json").is_file() and not (folder / "spiece.model").is_file()
    try:
        return (BigBirdTokenizerFast if only_fast else BigBirdTokenizer).from_pretrained(folder)
    except ValueError as error:
        raise ValueError(f"{error}\nText needs the model's tokenizer: convert with --vocab FILE") from None


def _limit(out: Path, length: int | None) -> int:
    config = read_folder_config(out, "torch")
    return length or config.max_encoder_length or config.max_position_embeddings


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a text in UTF-8, but it cannot be read: {error}") from None


def _inputs(encoding: dict[str, np.ndarray]) -> Inputs:
    return {name: encoding[name].astype(np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}
