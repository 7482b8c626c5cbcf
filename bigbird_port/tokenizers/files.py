"""The tokenizer files of a converted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigbird_port.tokenizers.fast import BigBirdTokenizerFast


def write_tokenizer_files(
    vocab_file: Path, folder: Path, model_max_length: int | None = None, embeddings: int | None = None
) -> list[str]:
    """Write the tokenizer of a vocabulary into a folder, for this package and for transformers' AutoTokenizer.

    Returns the names of the files: spiece.model (the same bytes), tokenizer.json, tokenizer_config.json and
    special_tokens_map.json. ``model_max_length`` (tokens) is the model's longest row, ``embeddings`` the number of its
    word embeddings, where they are known.

    Raises ValueError if the vocabulary cannot be read or has more pieces than the model, or the folder cannot be
    written.
    """
    options: dict[str, Any] = {} if model_max_length is None else {"model_max_length": model_max_length}
    tokenizer = BigBirdTokenizerFast(vocab_file, **options)
    if embeddings is not None and tokenizer.vocab_size > embeddings:
        raise ValueError(
            f"{vocab_file}: it has {tokenizer.vocab_size} pieces, but the model has {embeddings} word embeddings: give "
            "the vocabulary that the model was trained with"
        )
    return sorted(Path(path).name for path in tokenizer.save_pretrained(folder))
