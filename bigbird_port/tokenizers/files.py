"""The tokenizer files of a converted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigbird_port.tokenizers.fast import BigBirdTokenizerFast


def write_tokenizer_files(vocab_file: Path, folder: Path, model_max_length: int | None = None) -> list[str]:
    """Write the tokenizer of a vocabulary into a folder, for this package and for transformers' AutoTokenizer.

    Returns the names of the files: spiece.model (the same bytes), tokenizer.json, tokenizer_config.json and
    special_tokens_map.json. ``model_max_length`` (tokens) is the model's longest row, where it is known.

    Raises ValueError if the vocabulary cannot be read or the folder cannot be written.
    """
    options: dict[str, Any] = {} if model_max_length is None else {"model_max_length": model_max_length}
    return sorted(Path(path).name for path in BigBirdTokenizerFast(vocab_file, **options).save_pretrained(folder))
