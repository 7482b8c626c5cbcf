"""Any text: slow equals fast, both equal sentencepiece between special tokens and transformers' slow one."""

from __future__ import annotations

import re

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_corpus import EMOJI, ENDS, LANGUAGES, MARKUP, PIECES, SPECIAL, WHITE, WORDS

from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast

ATOMS = [*SPECIAL, *PIECES, *MARKUP, *WHITE, *ENDS, *EMOJI, *LANGUAGES, *WORDS, "\x1c", "\x1f", "\x00"]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.one_of(st.sampled_from(ATOMS), st.characters(exclude_categories=["Cs"]))).map("".join),
)
CHECKS = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SEPARATORS = re.compile(r"[\x1c-\x1f]\s*\[MASK\]")


@CHECKS
@given(text=TEXTS, pair=st.none() | TEXTS)
def test_slow_equals_fast(slow: BigBirdTokenizer, fast: BigBirdTokenizerFast, text: str, pair: str | None) -> None:
    options = {"return_special_tokens_mask": True, "return_token_type_ids": True, "return_length": True}
    assert dict(slow(text, pair, **options)) == dict(fast(text, pair, **options))
    assert slow.tokenize(text, pair) == fast.tokenize(text, pair)
    ids = slow.encode(text, pair)
    assert slow.decode(ids) == fast.decode(ids)


@CHECKS
@given(text=TEXTS)
def test_ids_are_sentencepieces_between_special_tokens(
    slow: BigBirdTokenizer, fast: BigBirdTokenizerFast, text: str
) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=slow.vocab_file)
    expected: list[int] = []
    # The space before [MASK] belongs to it; what comes of it is what sentencepiece itself strips at the end.
    text = re.sub(r"[^\S\x1c-\x1f]+\[MASK\]", "[MASK]", text)
    for part in re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", text):
        expected += [processor.piece_to_id(part)] if part in SPECIAL else processor.encode(part)
    assert slow.encode(text, add_special_tokens=False) == expected
    assert fast.encode(text, add_special_tokens=False) == expected


@CHECKS
@given(text=TEXTS)
def test_offsets_cover_the_text_in_order(fast: BigBirdTokenizerFast, text: str) -> None:
    row = fast(text, return_offsets_mapping=True, add_special_tokens=False)
    ends = [end for _, end in row.offset_mapping]
    assert ends == sorted(ends)
    assert all(0 <= start <= end <= len(text) for start, end in row.offset_mapping)
    covered = {place for start, end in row.offset_mapping for place in range(start, end)}
    assert all(character in " ▁" for place, character in enumerate(text) if place not in covered)


@CHECKS
@given(text=TEXTS, pair=st.none() | TEXTS, length=st.integers(3, 20), side=st.sampled_from(["left", "right"]))
def test_no_row_is_longer_than_asked(
    slow: BigBirdTokenizer, fast: BigBirdTokenizerFast, text: str, pair: str | None, length: int, side: str
) -> None:
    options = {"truncation": True, "padding": "max_length", "max_length": length, "padding_side": side}
    row = slow(text, pair, **options)
    assert dict(row) == dict(fast(text, pair, **options))
    assert len(row["input_ids"]) == len(row["attention_mask"]) == length
    special = slow.num_special_tokens_to_add(pair is not None)
    whole = len(slow.encode(text, pair))
    assert sum(row["attention_mask"]) == min(whole, length) >= min(special, length)


@CHECKS
@given(text=TEXTS, length=st.integers(4, 20), stride=st.integers(0, 10))
def test_windows_put_together_are_the_text(
    slow: BigBirdTokenizer, fast: BigBirdTokenizerFast, text: str, length: int, stride: int
) -> None:
    stride = min(stride, length - 3)
    options = {"truncation": True, "max_length": length, "stride": stride, "return_overflowing_tokens": True}
    rows = slow(text, **options)
    assert dict(rows) == dict(fast(text, **options))
    parts = [row[1:-1][stride if number else 0 :] for number, row in enumerate(rows["input_ids"])]
    assert [token for part in parts for token in part] == slow.encode(text, add_special_tokens=False)


@pytest.mark.peer
@CHECKS
@given(text=TEXTS)
def test_slow_against_transformers(peer_slow, slow: BigBirdTokenizer, text: str) -> None:
    expected = peer_slow(text)["input_ids"]
    assert slow.encode(SEPARATORS.sub("[MASK]", text)) == expected
    assert slow.decode(expected) == peer_slow.decode(expected)
