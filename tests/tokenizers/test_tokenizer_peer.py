"""Ids, tokens, offsets, words and text against transformers' slow and fast tokenizers, on every string.

transformers' two tokenizers differ from each other; REASONS says on which strings, and no string is left out: ours
have the slow one's ids on all of them, and the fast one's offsets, words and tokens wherever no reason holds.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
from tokenizer_corpus import SPECIAL, strings

from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast

pytestmark = pytest.mark.peer

ANY_SPECIAL = "(?:" + "|".join(map(re.escape, SPECIAL)) + ")"
# Python's white space that Unicode has not: transformers' slow tokenizer strips it before [MASK].
SEPARATORS = re.compile(r"[\x1c-\x1f]\s*\[MASK\]")
REASONS = {
    "white space before special tokens or the end, which transformers' fast tokenizer drops": re.compile(
        rf"[^\S \x1c-\x1f] *(?:{ANY_SPECIAL}|\Z)"
    ),
    "a space before <unk>, which it keeps": re.compile(" <unk>"),
    "user-defined pieces, after which it puts a space": re.compile(r"<t>|<sep_0>|<length_10?>"),
    "U+2581, which it takes for a space": re.compile("▁"),
    "pieces that reach over a space, which it never finds": re.compile(r"no +no|Âł +Âł"),
}


def reasons(text: str) -> list[str]:
    return [reason for reason, pattern in REASONS.items() if pattern.search(text)]


def test_corpus_is_large() -> None:
    assert len(strings()) >= 3000


def test_slow_ids_and_tokens(slow: BigBirdTokenizer, peer_slow) -> None:
    different = Counter()
    for text in strings():
        same = slow(text)["input_ids"] == peer_slow(text)["input_ids"] and slow.tokenize(text) == peer_slow.tokenize(
            text
        )
        if not same:
            assert SEPARATORS.search(text), text[:200]
            assert slow(SEPARATORS.sub("[MASK]", text))["input_ids"] == peer_slow(text)["input_ids"], text[:200]
            different["separators"] += 1
    assert 0 < different["separators"] <= 40


def test_fast_ids_are_those_of_transformers_slow(fast: BigBirdTokenizerFast, peer_slow) -> None:
    for text in strings():
        expected = peer_slow(text)["input_ids"]
        if SEPARATORS.search(text):
            text = SEPARATORS.sub("[MASK]", text)
        assert fast(text)["input_ids"] == expected, text[:200]


def test_fast_offsets_words_and_tokens(fast: BigBirdTokenizerFast, peer_fast) -> None:
    counts = Counter()
    for text in strings():
        ours, theirs = fast(text, return_offsets_mapping=True), peer_fast(text, return_offsets_mapping=True)
        same = (
            ours["input_ids"] == theirs["input_ids"]
            and ours["offset_mapping"] == theirs["offset_mapping"]
            and ours.word_ids() == theirs.word_ids()
            and ours.tokens() == theirs.tokens()
            and ours.sequence_ids() == theirs.sequence_ids()
        )
        counts["same"] += same
        if not same:
            found = reasons(text)
            assert found, (text[:200], ours.tokens()[:50], theirs.tokens()[:50])
            counts.update(found if len(found) == 1 else ["several reasons"])
    # Every reason is the only one for some string, so that none of them hides another difference.
    assert counts["same"] >= 2000, counts
    assert all(counts[reason] for reason in REASONS), counts


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("clean", [None, False, True])
@pytest.mark.quick("fixture-None-True", "fixture-False-False")
def test_decoded_text(
    slow: BigBirdTokenizer, fast: BigBirdTokenizerFast, peer_slow, skip: bool, clean: bool | None
) -> None:
    for text in strings():
        ids = slow(text)["input_ids"]
        expected = peer_slow.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=clean)
        for tokenizer in (slow, fast):
            assert tokenizer.decode(ids, skip, clean) == expected, text[:200]


def test_decoded_text_of_transformers_fast(fast: BigBirdTokenizerFast, peer_fast) -> None:
    """The same but for spaces around special tokens, and for those at the end."""
    without_spaces = re.compile(rf"\s*({ANY_SPECIAL})\s*")
    for text in strings():
        ids = fast(text)["input_ids"]
        ours, theirs = fast.decode(ids), peer_fast.decode(ids)
        assert without_spaces.sub(r"\1", ours) == without_spaces.sub(r"\1", theirs), text[:200]
        assert fast.backend_tokenizer.decode(ids, skip_special_tokens=False) == theirs, text[:200]


def test_batches_are_the_rows(slow: BigBirdTokenizer, fast: BigBirdTokenizerFast) -> None:
    texts = [text for text in strings() if len(text) < 2000]
    rows = slow(texts)["input_ids"]
    assert rows == fast(texts)["input_ids"]
    assert rows == [slow.encode(text) for text in texts]
    assert slow.batch_decode(rows) == fast.batch_decode(rows) == [slow.decode(row) for row in rows]


def test_methods_of_the_page(slow: BigBirdTokenizer, fast: BigBirdTokenizerFast, peer_slow, peer_fast) -> None:
    first, second = slow.encode("once upon", add_special_tokens=False), slow.encode("a time", add_special_tokens=False)
    for tokenizer in (slow, fast):
        for pair in ((first, None), (first, second), ([], None), ([], [])):
            for name in (
                "build_inputs_with_special_tokens",
                "get_special_tokens_mask",
                "create_token_type_ids_from_sequences",
            ):
                ours = getattr(tokenizer, name)(*pair)
                assert ours == getattr(peer_slow, name)(*pair) == getattr(peer_fast, name)(*pair)
        row = slow.encode("once [MASK] <s>", "upon <unk> a", padding="max_length", max_length=16)
        ours = tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True)
        assert ours == peer_slow.get_special_tokens_mask(row, already_has_special_tokens=True)
        # transformers' fast one leaves out all but [CLS] and [SEP]: the slow one's is what masking needs.
        assert ours != peer_fast.get_special_tokens_mask(row, already_has_special_tokens=True)


def test_names_and_ids(slow: BigBirdTokenizer, fast: BigBirdTokenizerFast, peer_slow) -> None:
    for tokenizer in (slow, fast):
        for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
            assert getattr(tokenizer, f"{name}_token") == getattr(peer_slow, f"{name}_token")
            assert getattr(tokenizer, f"{name}_token_id") == getattr(peer_slow, f"{name}_token_id")
        for name in ("all_special_tokens", "all_special_ids", "vocab_size", "special_tokens_map", "model_max_length"):
            assert getattr(tokenizer, name) == getattr(peer_slow, name)
        for name in ("padding_side", "truncation_side", "clean_up_tokenization_spaces", "model_input_names"):
            assert getattr(tokenizer, name) == getattr(peer_slow, name)
        assert tokenizer.get_vocab() == peer_slow.get_vocab()
        assert len(tokenizer) == len(peer_slow)
        assert tokenizer.is_fast == (tokenizer is fast)
        for number in range(0, tokenizer.vocab_size, 7):
            token = tokenizer.convert_ids_to_tokens(number)
            assert token == peer_slow.convert_ids_to_tokens(number)
            assert tokenizer.convert_tokens_to_ids(token) == number


def test_convert_tokens_to_string(slow: BigBirdTokenizer, fast: BigBirdTokenizerFast, peer_slow, peer_fast) -> None:
    for text in strings():
        tokens = slow.convert_ids_to_tokens(slow.encode(text))
        ours = slow.convert_tokens_to_string(tokens)
        assert ours == fast.convert_tokens_to_string(tokens)
        assert ours == peer_fast.convert_tokens_to_string(tokens).strip(), text[:200]
        # transformers' slow one puts a space after special tokens, or takes it away.
        spaces = str.maketrans("", "", " ")
        assert ours.translate(spaces) == peer_slow.convert_tokens_to_string(tokens).translate(spaces), text[:200]
