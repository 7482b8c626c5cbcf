"""Calls: padding, truncation, windows, tensors and errors; slow equals fast, and both equal transformers."""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import operator
import sys

import numpy as np
import pytest

from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast

TEXTS = ["hello world this is a test", "short one", "a much longer text with [MASK] and some more words to cut off"]
PAIRS = ["a pair of these", "the second of the pair is longer than that", "over there we go"]
GRID = [
    {"padding": padding, "truncation": truncation, "max_length": length, "pad_to_multiple_of": multiple}
    for padding, truncation, length, multiple in itertools.product(
        [False, True, "longest", "max_length", "do_not_pad"],
        [None, False, True, "longest_first", "only_first", "only_second", "do_not_truncate"],
        [None, 32, 48],
        [None, 8],
    )
]
TRUNCATES = (True, "longest_first", "only_first", "only_second")
Tokenizers = tuple[BigBirdTokenizer, BigBirdTokenizerFast]


@pytest.fixture(scope="module")
def both(slow: BigBirdTokenizer, fast: BigBirdTokenizerFast) -> Tokenizers:
    return slow, fast


def possible(options: dict, pair: bool) -> bool:
    needs_length = options["padding"] == "max_length" or options["truncation"] in TRUNCATES
    return not (needs_length and options["max_length"] is None) and (pair or options["truncation"] != "only_second")


def attempt(tokenizer, given: tuple, options: dict) -> dict | None:
    try:
        return dict(tokenizer(*given, **options))
    except Exception:
        return None
    except BaseException as error:
        # A panic of the library is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        return None


@pytest.fixture(autouse=True)
def quiet_peer() -> None:
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.set_verbosity(logging.CRITICAL)


@pytest.mark.peer
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.filterwarnings("ignore:`max_length` is ignored")
def test_options_against_transformers(both: Tokenizers, vocab, pair: bool, side: str) -> None:
    transformers = pytest.importorskip("transformers")
    peers = [
        peer(str(vocab), padding_side=side, truncation_side=side)
        for peer in (transformers.BigBirdTokenizer, transformers.BigBirdTokenizerFast)
    ]
    ours = [type(one)(vocab, padding_side=side, truncation_side=side) for one in both]
    compared = 0
    for options, special in itertools.product(GRID, [True, False]):
        if not possible(options, pair):
            continue
        asked = options | {"add_special_tokens": special, "return_special_tokens_mask": True}
        asked["return_token_type_ids"] = special
        given = (TEXTS, PAIRS) if pair else (TEXTS,)
        # Of a pair cut longest first, transformers' slow one may keep another odd token: that has its own test.
        cut = options["truncation"] in (True, "longest_first") or (
            options["truncation"] is None and options["padding"] is False and options["max_length"] is not None
        )
        witnesses = peers[1:] if pair and cut else peers
        results = [dict(tokenizer(*given, **asked)) for tokenizer in (*ours, *witnesses)]
        assert all(result == results[0] for result in results[1:]), asked
        for number in range(len(TEXTS)):
            single = [
                dict(tokenizer(*(texts[number] for texts in given), **asked)) for tokenizer in (*ours, *witnesses)
            ]
            assert all(result == single[0] for result in single[1:]), asked
        compared += 1
    assert compared > 100


@pytest.mark.peer
@pytest.mark.parametrize("side", ["left", "right"])
def test_windows_against_transformers(both: Tokenizers, vocab, side: str) -> None:
    transformers = pytest.importorskip("transformers")
    peer = transformers.BigBirdTokenizerFast(str(vocab), truncation_side=side)
    ours = [type(one)(vocab, truncation_side=side) for one in both]
    compared = 0
    for truncation, length, stride, padding in itertools.product(
        [True, "only_first", "only_second"], [22, 27, 40], [0, 1, 3], [False, True, "max_length"]
    ):
        asked = {"truncation": truncation, "max_length": length, "stride": stride, "padding": padding}
        asked |= {"return_overflowing_tokens": True, "return_token_type_ids": True, "return_length": True}
        for given in ((TEXTS,), (TEXTS, PAIRS), (TEXTS[2],), (TEXTS[2], PAIRS[0])):
            expected = attempt(peer, given, asked | {"return_offsets_mapping": True})
            if expected is None:
                for tokenizer in ours:
                    with pytest.raises(ValueError, match=r"stride|truncation"):
                        tokenizer(*given, **asked)
                continue
            assert dict(ours[1](*given, **asked, return_offsets_mapping=True)) == expected
            expected.pop("offset_mapping")
            assert dict(ours[0](*given, **asked)) == expected
            compared += 1
    assert compared > 150


@pytest.mark.peer
def test_odd_token_of_a_pair_cut_longest_first(both: Tokenizers, vocab) -> None:
    """The one truncation where transformers' two differ: ours follow the library."""
    transformers = pytest.importorskip("transformers")
    peer_slow, peer_fast = transformers.BigBirdTokenizer(str(vocab)), transformers.BigBirdTokenizerFast(str(vocab))
    differences = 0
    for first, second, length in itertools.product(range(6), range(6), range(4, 13)):
        texts = (" ".join(["the"] * first), " ".join(["of"] * second))
        asked = {"truncation": True, "max_length": length}
        rows = [tokenizer.encode(*texts, **asked) for tokenizer in both]
        assert rows[0] == rows[1]
        if second:  # transformers' fast one takes an empty second text for none
            assert rows[0] == peer_fast.encode(*texts, **asked)
        if rows[0] != peer_slow.encode(*texts, **asked):
            assert first <= second
            assert length % 2 == 0  # three special tokens leave an odd number for text
            differences += 1
    assert differences > 0


def test_windows_hold_every_token(both: Tokenizers) -> None:
    for tokenizer in both:
        ids = tokenizer.encode(TEXTS[2], add_special_tokens=False)
        rows = tokenizer(TEXTS[2], truncation=True, max_length=8, stride=2, return_overflowing_tokens=True)
        assert rows["overflow_to_sample_mapping"] == [0] * len(rows["input_ids"])
        inner = [row[1:-1] for row in rows["input_ids"]]
        assert [token for number, row in enumerate(inner) for token in row[2 if number else 0 :]] == ids
        assert all(one[-2:] == two[:2] for one, two in itertools.pairwise(inner))


def test_words_are_encoded_one_by_one(both: Tokenizers) -> None:
    words = ["hello", "New", "York's", "", "[MASK]"]
    rows = [tokenizer(words, is_split_into_words=True) for tokenizer in both]
    assert dict(rows[0]) == dict(rows[1])
    expected = [both[0].encode(word, add_special_tokens=False) for word in words]
    assert rows[0]["input_ids"][1:-1] == functools.reduce(operator.add, expected)
    assert rows[1].word_ids()[1:-1] == [number for number, ids in enumerate(expected) for _ in ids]
    batch = [tokenizer([words, ["a"]], [["b"], words], is_split_into_words=True) for tokenizer in both]
    assert dict(batch[0]) == dict(batch[1])


def test_offsets_point_at_the_text(fast: BigBirdTokenizerFast) -> None:
    text = "hello  [MASK] world"
    row = fast(text, "again", return_offsets_mapping=True)
    start, end = row.offset_mapping[row.input_ids.index(fast.mask_token_id)]
    assert text[start:end] == "  [MASK]"
    assert row.sequence_ids()[0] is None
    assert set(row.sequence_ids()[1:-1]) == {0, None, 1}
    assert row.char_to_token(0, 0) == 1


@pytest.mark.parametrize("framework", ["np", "pt", "jax"])
def test_tensors(both: Tokenizers, framework: str) -> None:
    asked = {"padding": True, "return_special_tokens_mask": True, "return_length": True}
    lists = both[0](TEXTS, **asked)
    for tokenizer in both:
        arrays = tokenizer(TEXTS, **asked, return_tensors=framework)
        assert (
            type(arrays["input_ids"]).__module__.split(".")[0]
            in {"np": "numpy", "pt": "torch", "jax": "jaxlib"}[framework]
        )
        for name, values in lists.items():
            assert np.asarray(arrays[name]).tolist() == values
        assert np.asarray(tokenizer("a", return_tensors=framework)["input_ids"]).shape[0] == 1
        assert tokenizer.batch_decode(arrays["input_ids"]) == tokenizer.batch_decode(lists["input_ids"])
        assert tokenizer.decode(arrays["input_ids"][0]) == tokenizer.decode(lists["input_ids"][0])
        with pytest.raises(ValueError, match="padding=True"):
            tokenizer(TEXTS, return_tensors=framework)


def test_what_a_call_returns(both: Tokenizers) -> None:
    for tokenizer in both:
        assert set(tokenizer("a")) == {"input_ids", "attention_mask"}
        assert set(tokenizer("a", return_attention_mask=False, return_token_type_ids=True)) == {
            "input_ids",
            "token_type_ids",
        }
        row = tokenizer("a", return_length=True, padding="max_length", max_length=9)
        assert row["length"] == row.length == 9
        assert tokenizer([])["input_ids"] == []
        assert tokenizer(("a", "b"))["input_ids"] == [tokenizer.encode("a"), tokenizer.encode("b")]
        assert tokenizer.tokenize("a [MASK]", "the", add_special_tokens=True)[-3:] == ["[SEP]", "▁the", "[SEP]"]
        assert tokenizer.tokenize("a  [MASK]")[-1] == "[MASK]"
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.model_max_length = 7
        assert len(tokenizer.encode(TEXTS[2], truncation=True)) == 7
        assert tokenizer.max_len_single_sentence == 5
        assert tokenizer.max_len_sentences_pair == 4


@pytest.mark.peer
@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_later(both: Tokenizers, vocab, side: str) -> None:
    transformers = pytest.importorskip("transformers")
    peer = transformers.BigBirdTokenizer(str(vocab))
    rows = both[0](TEXTS, return_special_tokens_mask=True, return_token_type_ids=True)
    listed = [{name: values[number] for name, values in rows.items()} for number in range(len(TEXTS))]
    for given, asked in itertools.product(
        (dict(rows), listed, listed[0]),
        ({}, {"padding": "max_length", "max_length": 40}, {"pad_to_multiple_of": 8}, {"padding": False}),
    ):
        expected = dict(peer.pad(copy.deepcopy(given), **asked, padding_side=side))
        assert dict(both[0].pad(given, **asked, padding_side=side)) == expected
        assert dict(both[1].pad(given, **asked, padding_side=side)) == expected
    assert both[0].pad(listed, return_tensors="np")["input_ids"].shape[0] == len(TEXTS)
    with pytest.raises(ValueError, match="no input_ids"):
        both[0].pad({"labels": [1]})


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (("a",), {"padding": "longer"}, "padding is 'longer'.*'max_length'"),
        (("a",), {"truncation": "last"}, "truncation is 'last'.*'only_first'"),
        (("a",), {"padding_side": "top"}, "padding_side is 'top'"),
        (("a",), {"truncation": True, "max_length": 1}, "special tokens alone take 2: give at least 3"),
        (("a", "b"), {"truncation": True, "max_length": 2}, "special tokens alone take 3"),
        (("a",), {"max_length": 0}, "max_length is 0"),
        (("a",), {"stride": -1}, "stride is -1"),
        (("a",), {"pad_to_multiple_of": True}, "pad_to_multiple_of is True"),
        (
            ("a",),
            {"truncation": True, "max_length": 5, "stride": 3, "return_overflowing_tokens": True},
            "never advance",
        ),
        (
            ("a b c d e f", "g h i j"),
            {"truncation": True, "max_length": 7, "stride": 2, "return_overflowing_tokens": True},
            "pair 0, so that windows would never advance",
        ),
        (("a",), {"truncation": True, "padding": True, "max_length": 9, "pad_to_multiple_of": 8}, "not a multiple"),
        (
            ("a b c", "d e f g h"),
            {"truncation": "only_first", "max_length": 5},
            "truncation 'only_first'.*longest_first",
        ),
        (("a b c d",), {"truncation": "only_second", "max_length": 4}, "truncation 'only_second'"),
        (("a",), {"return_tensors": "tf"}, "return_tensors is 'tf'.*'np', 'pt', 'jax'"),
        ((3,), {}, "text is a int"),
        ((None,), {}, "text was not given: give text, text_target or both"),
        (([["a"]],), {}, "is_split_into_words=True"),
        (("a",), {"is_split_into_words": True}, "text is a str"),
        (("a", ["b"]), {}, "one is a text and the other a batch"),
        ((["a"], ["b", "c"]), {}, "text has 1 entries and text_pair 2"),
        (("a\ud800",), {}, r"lone surrogate U\+D800 at character 1"),
    ],
)
def test_errors_of_calls(both: Tokenizers, given, options, message: str) -> None:
    for tokenizer in both:
        with pytest.raises(ValueError, match=message):
            tokenizer(*given, **options)
        # An error leaves nothing behind.
        assert len(tokenizer.encode("a b c d e f g h i")) > 9


def test_errors_of_slow_and_of_methods(both: Tokenizers) -> None:
    with pytest.raises(ValueError, match="BigBirdTokenizerFast"):
        both[0]("a", return_offsets_mapping=True)
    with pytest.raises(ValueError, match="BigBirdTokenizerFast"):
        both[0]("a").word_ids()
    with pytest.raises(AttributeError, match="only input_ids"):
        _ = both[0]("a").token_type_ids
    for tokenizer in both:
        with pytest.raises(ValueError, match=r"token id \d+ is not in the vocabulary"):
            tokenizer.decode([tokenizer.vocab_size])
        with pytest.raises(ValueError, match="-1 is not in the vocabulary"):
            tokenizer.convert_ids_to_tokens(-1)
        with pytest.raises(ValueError, match="batch_decode"):
            tokenizer.decode([[1, 2]])
        with pytest.raises(ValueError, match="already_has_special_tokens"):
            tokenizer.get_special_tokens_mask([1], [2], already_has_special_tokens=True)
        assert tokenizer.convert_tokens_to_ids("no such piece") == tokenizer.unk_token_id
        assert tokenizer.decode(tokenizer.mask_token_id) == "[MASK]"
