"""Rows that were encoded before, made batches for training: padded with their labels, or with words masked.

Legend: B rows, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigbird_port.installed import need
from bigbird_port.tokenizers.base import TokenizerBase
from bigbird_port.tokenizers.calls.batch import BatchEncoding
from bigbird_port.tokenizers.vocabulary import SPACE

IGNORED = -100  # a label that does not count
_LABELS = ("label", "label_ids")  # other names of a row's label


@dataclass
class PaddingCollator:
    """Pads rows, and ``labels`` that are a list for each row; ``label`` and ``label_ids`` are called labels.

    padding, max_length, pad_to_multiple_of: tokenizer.pad's. label_pad_token_id: what labels are padded with.
    return_tensors: "pt", "np" or "jax".
    """

    tokenizer: TokenizerBase
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "pt"

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        """Return the rows as one batch of arrays; raises ValueError as tokenizer.pad does."""
        return self._arrays(self._padded(rows))

    def _padded(self, rows: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        named = [{"labels" if name in _LABELS else name: value for name, value in row.items()} for row in rows]
        padded = self.tokenizer.pad(
            [{name: value for name, value in row.items() if name != "labels"} for row in named],
            self.padding,
            self.max_length,
            self.pad_to_multiple_of,
        )
        if named and "labels" in named[0]:
            labels = [row["labels"] for row in named]
            padded["labels"] = [self._row_labels(own, len(padded["input_ids"][0])) for own in labels]
        return padded

    def _row_labels(self, labels: Any, length: int) -> Any:
        labels = labels.tolist() if hasattr(labels, "tolist") else labels
        if not isinstance(labels, list | tuple):
            return labels
        missing = [self.label_pad_token_id] * (length - len(labels))
        return [*missing, *labels] if self.tokenizer.padding_side == "left" else [*labels, *missing]

    def _arrays(self, batch: BatchEncoding) -> BatchEncoding:
        numbers = batch.pop("labels", None)
        batch = batch.convert_to_tensors(self.return_tensors)
        if numbers is not None:
            labels = np.asarray(numbers)
            labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
            batch["labels"] = _array(labels, self.return_tensors)
        return batch


@dataclass
class MaskingCollator(PaddingCollator):
    """Pads rows and masks words: ``labels`` are the masked tokens' ids, and -100 elsewhere.

    mlm_probability: of a token, or with whole_words of a word, to be predicted. Of these 80 % become the mask token,
    10 % a token drawn at random (a whole word: each of its tokens), 10 % stay. Special tokens are never masked. seed:
    of the draws, which go on from batch to batch. A word begins with the space that sentencepiece writes.
    """

    mlm_probability: float = 0.15
    whole_words: bool = False
    seed: int = 0
    _draws: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError for a probability that is none."""
        if not 0 < self.mlm_probability <= 1:
            raise ValueError(f"mlm_probability is {self.mlm_probability}, expected above 0 and at most 1")
        self._draws = np.random.default_rng(self.seed)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        """Return the rows as one batch of arrays, with ``labels``; raises ValueError as tokenizer.pad does."""
        padded = self._padded([{name: row[name] for name in row if name not in (*_LABELS, "labels")} for row in rows])
        given = padded.pop("special_tokens_mask", None)
        ids_BL = np.asarray(padded["input_ids"], np.int64)
        if given is None:
            given = [self.tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in ids_BL]
        text_BL = np.asarray(given) == 0
        if "attention_mask" in padded:
            text_BL &= np.asarray(padded["attention_mask"]) == 1
        words_BL = (
            self._words(ids_BL) if self.whole_words else np.broadcast_to(np.arange(ids_BL.shape[1]), ids_BL.shape)
        )
        chosen_BL = self._of_words(words_BL, self.mlm_probability) & text_BL
        masked_BL = chosen_BL & self._of_words(words_BL, 0.8)
        drawn_BL = chosen_BL & ~masked_BL & self._of_words(words_BL, 0.5)
        labels_BL = np.where(chosen_BL, ids_BL, IGNORED)
        ids_BL = np.where(masked_BL, self.tokenizer.mask_token_id, ids_BL)
        ids_BL = np.where(drawn_BL, self._draws.integers(0, len(self.tokenizer), ids_BL.shape), ids_BL)
        padded["input_ids"], padded["labels"] = ids_BL.tolist(), labels_BL.tolist()
        return self._arrays(padded)

    def _words(self, ids_BL: np.ndarray) -> np.ndarray:
        """The number of each token's word in its row."""
        special = set(self.tokenizer.all_special_ids)
        begins = [
            [i in special or token.startswith(SPACE) for i, token in zip(row, tokens, strict=True)]
            for row, tokens in ((row, self.tokenizer.convert_ids_to_tokens(row)) for row in ids_BL.tolist())
        ]
        words_BL: np.ndarray = np.cumsum(begins, axis=1)
        return words_BL

    def _of_words(self, words_BL: np.ndarray, probability: float) -> np.ndarray:
        """Draw for every word whether its tokens are taken."""
        drawn_BW = self._draws.random((len(words_BL), int(words_BL.max(initial=0)) + 1)) < probability
        return np.take_along_axis(drawn_BW, words_BL, axis=1)


def _array(values: np.ndarray, framework: str) -> Any:
    if framework == "pt":
        need("return_tensors='pt'", "torch")
        import torch

        return torch.from_numpy(values)
    if framework == "jax":
        need("return_tensors='jax'", "jax")
        import jax.numpy as jnp

        return jnp.asarray(values)
    return values
