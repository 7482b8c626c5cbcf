"""The seven special tokens, their ids in the vocabulary, and where they stand in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The order is transformers', so that the files that list them read alike.
DEFAULT_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "[SEP]",
    "pad_token": "<pad>",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


class SpecialTokens:
    """Special tokens with the ids that the vocabulary gives them.

    Raises ValueError for a token that the vocabulary does not have.
    """

    def __init__(self, tokens: Mapping[str, Any], vocab: Mapping[str, int]) -> None:
        for name, token in tokens.items():
            if not isinstance(token, str) or token not in vocab:
                raise ValueError(
                    f"{name} is {token!r}, which the vocabulary of {len(vocab)} pieces does not have, and a model has "
                    "no embedding for it: use one of its pieces, or the vocabulary that belongs to the checkpoint"
                )
        self.special_tokens_map = dict(tokens)
        self.bos_token, self.bos_token_id = _both(tokens, vocab, "bos_token")
        self.eos_token, self.eos_token_id = _both(tokens, vocab, "eos_token")
        self.unk_token, self.unk_token_id = _both(tokens, vocab, "unk_token")
        self.sep_token, self.sep_token_id = _both(tokens, vocab, "sep_token")
        self.pad_token, self.pad_token_id = _both(tokens, vocab, "pad_token")
        self.cls_token, self.cls_token_id = _both(tokens, vocab, "cls_token")
        self.mask_token, self.mask_token_id = _both(tokens, vocab, "mask_token")
        self.all_special_tokens = list(dict.fromkeys(tokens.values()))
        self.all_special_ids = [vocab[token] for token in self.all_special_tokens]

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return ``[CLS] A [SEP]``, or ``[CLS] A [SEP] B [SEP]`` for a pair."""
        row = [self.cls_token_id, *token_ids_0, self.sep_token_id]
        return row if token_ids_1 is None else [*row, *token_ids_1, self.sep_token_id]

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Return 1 for special tokens and 0 for others, of the row that the sequences make.

        With ``already_has_special_tokens``, ``token_ids_0`` is that row, and any of the special ids counts.

        Raises ValueError if a second sequence comes with a row that has its special tokens.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError(
                    "token_ids_1 is given with already_has_special_tokens=True, but then token_ids_0 is the whole "
                    "row: leave token_ids_1 out"
                )
            special = set(self.all_special_ids)
            return [int(token in special) for token in token_ids_0]
        mask = [1, *([0] * len(token_ids_0)), 1]
        return mask if token_ids_1 is None else [*mask, *([0] * len(token_ids_1)), 1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return 0 for ``[CLS] A [SEP]`` and 1 for ``B [SEP]``."""
        types = [0] * (len(token_ids_0) + 2)
        return types if token_ids_1 is None else types + [1] * (len(token_ids_1) + 1)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many tokens a row has besides those of its texts."""
        return 3 if pair else 2


def _both(tokens: Mapping[str, str], vocab: Mapping[str, int], name: str) -> tuple[str, int]:
    return tokens[name], vocab[tokens[name]]
