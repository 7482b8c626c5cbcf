"""The tokenizers pipeline that cuts text as sentencepiece does, built from a vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from bigbird_port.tokenizers.vocabulary import SPACE, Vocabulary


def build_pipeline(vocabulary: Vocabulary, tokens: Mapping[str, str]) -> Tokenizer:
    """Return the pipeline of a vocabulary, without a template for special tokens.

    Raises ValueError for a vocabulary with a character map or other whitespace rules than BigBird's.
    """
    if not vocabulary.plain:
        raise ValueError(
            f"{vocabulary.path}: has a character map, byte pieces or other rules for spaces than BigBird's "
            "vocabulary, which the fast tokenizer does not follow: use BigBirdTokenizer"
        )
    scored = list(zip(vocabulary.pieces, vocabulary.scores, strict=True))
    pipeline = Tokenizer(models.Unigram(scored, unk_id=vocabulary.unk_id, byte_fallback=False))
    pipeline.normalizer = _spaces()
    pipeline.pre_tokenizer = pre_tokenizers.Sequence([*_user_defined(vocabulary), _words(vocabulary)])
    pipeline.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    # Not normalized: they are found in the text itself, and the rules for spaces apply to each part between.
    # A token that the vocabulary lacks would get an id of its own here; SpecialTokens reports it.
    special = [token for token in dict.fromkeys(tokens.values()) if token in vocabulary.pieces]
    pipeline.add_special_tokens(
        [AddedToken(token, lstrip=token == tokens["mask_token"], normalized=False, special=True) for token in special]
    )
    return pipeline


def _spaces() -> normalizers.Normalizer:
    return normalizers.Sequence(
        [
            normalizers.Prepend(" "),
            normalizers.Replace(Regex(" +"), SPACE),
            normalizers.Replace(Regex(rf"{SPACE}+\z"), ""),
        ]
    )


def _user_defined(vocabulary: Vocabulary) -> list[pre_tokenizers.PreTokenizer]:
    if not vocabulary.user_defined:
        return []
    longest_first = sorted(vocabulary.user_defined, key=len, reverse=True)
    return [pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")]


def _words(vocabulary: Vocabulary) -> pre_tokenizers.PreTokenizer:
    # A word starts at every space, except where a piece of the vocabulary reaches over one.
    inner = {
        (piece[:place], piece[place + 1 :])
        for piece in vocabulary.pieces
        for place in range(1, len(piece))
        if piece[place] == SPACE
    }
    reached = "|".join(f"(?<={re.escape(left)}){SPACE}{re.escape(right)}" for left, right in sorted(inner))
    return pre_tokenizers.Split(Regex(f"(?!{reached}){SPACE}" if reached else SPACE), "merged_with_next")
