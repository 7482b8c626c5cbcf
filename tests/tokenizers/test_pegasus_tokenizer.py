"""BigBird-Pegasus' tokenizers against the original's rules, each other, and transformers' on every string."""

from __future__ import annotations

import json
import pickle
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from tokenizer_corpus import SPECIAL, strings

from bigbird_port.tokenizers import (
    BigBirdPegasusTokenizer,
    BigBirdPegasusTokenizerFast,
    BigBirdTokenizer,
    write_tokenizer_files,
)
from bigbird_port.tokenizers.files import carry_tokenizer
from bigbird_port.tokenizers.pegasus.rules import TextRules
from tests.vocabulary import train_pegasus_vocabulary

KINDS = [BigBirdPegasusTokenizer, BigBirdPegasusTokenizerFast]
FILES = ["special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"]
# What makes these tokenizers cut as transformers' does.
AS_TRANSFORMERS = {"substitute_newline": "", "tight_brackets": False, "end_documents": True}
NAMED = {"bos_token": "<s>", "sep_token": "[SEP]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
ACCENTS = ["e\u0301\u0323 x", "\uff41\u0327 b", "\ufb01\u0301 c", "a\u0308\u0304 d", "\u0344\u0301\ufb01\u0341"]
RULES = [
    "a <n> b",
    "a\nb",
    "a \n\n [1] <c>\nd [e f] (g)",
    "x  [12] y",
    "[ ] <> [] <a>b>c <a b>",
    "a\t<b>\r\n[c\x0bd] e",
]
ANY_SPECIAL = re.compile("|".join(map(re.escape, [*SPECIAL, "<mask_1>", "<mask_2>"])))
REASONS = {
    "special tokens, which transformers finds": ANY_SPECIAL,
    "user-defined pieces, behind which its fast one puts a blank": re.compile(r"<t>|<sep_0>|<length_10?>|<n>"),
    "U+2581, which its fast one takes for a blank": re.compile("▁"),
    "U+0085, which its fast one takes for white space": re.compile("\x85"),
    "several accents, of which its fast one loses some": re.compile("|".join(map(re.escape, ACCENTS))),
}


def corpus(step: int = 1) -> tuple[str, ...]:
    return (*strings()[::step], *ACCENTS, *RULES)


@pytest.fixture(scope="module", params=["fixture", pytest.param("original", marks=pytest.mark.slow)])
def vocab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "original":
        path = request.getfixturevalue("original_vocab").with_name("pegasus.model")
        return path if path.is_file() else pytest.skip("the original's vocabulary is not there")
    path = tmp_path_factory.mktemp("vocab") / "fixture.model"
    path.write_bytes(train_pegasus_vocabulary())
    return path


@pytest.fixture(scope="module")
def slow(vocab: Path) -> BigBirdPegasusTokenizer:
    return BigBirdPegasusTokenizer(vocab)


@pytest.fixture(scope="module")
def fast(vocab: Path) -> BigBirdPegasusTokenizerFast:
    return BigBirdPegasusTokenizerFast(vocab)


def test_slow_and_fast_have_equal_ids_and_tokens(slow, fast) -> None:
    choose = random.Random(1)
    atoms = [*map(chr, range(0x300, 0x345)), *"aeEz <>[]\n", "\ufb01", "\uff41", "\uac00", "\u1161"]
    mixed = ["".join(choose.choices(atoms, k=6)) for _ in range(1000)]
    assert sum(not fast._agrees(text) for text in mixed) > 40  # the library alone would cut these otherwise
    for text in (*corpus(), *mixed):
        assert slow(text).input_ids == fast(text).input_ids, text[:100]
        assert slow(text).input_ids == slow.sp_model.encode(slow.rules.before(text)), text[:100]
    for text in corpus(7):
        assert slow.tokenize(text) == fast.tokenize(text), text[:100]
        assert slow.decode(slow(text).input_ids) == fast.decode(fast(text).input_ids)


def test_the_rules_of_the_original() -> None:
    rules = TextRules("<n>", True)
    assert rules.before("Hello world.\nNew  line [MASK] <b c> <d>") == "Hello world.<n>New  line[MASK] <b c><d>"
    assert rules.before("a  [x] \n [1") == "a [x]<n> [1"
    assert rules.after("a<n>b [c]d") == "a \nb  [c]d"
    assert rules.after("x<a>b<c>y") == "x <a>b<c>y"  # one word, as for RE2
    off = TextRules(None, False)
    assert off.before("a\n [b]") == off.after("a\n [b]") == "a\n [b]"


@pytest.mark.slow
def test_the_rules_are_those_of_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow")
    rules = TextRules("<n>", True)
    for text in corpus():
        spelled = tf.strings.regex_replace(tf.strings.regex_replace(text, "\n", "<n>"), r" ([<\[]\S+[>\]])", r"\1")
        assert rules.before(text).encode() == spelled.numpy(), text[:100]
        shown = tf.strings.regex_replace(tf.strings.regex_replace(text, r"([<\[]\S+[>\]])", r" \1"), "<n>", "\n")
        assert rules.after(text).encode() == shown.numpy(), text[:100]


def test_examples_of_the_original(original_vocab: Path) -> None:
    vocabulary = original_vocab.with_name("pegasus.model")
    for kind in KINDS:
        tokenizer = kind(vocabulary)
        assert tokenizer("Hello world.\nNew line").input_ids == [8087, 278, 107, 106, 3056, 540]
        assert tokenizer("a [MASK] b <n> c").input_ids == [114, 67, 3027, 106, 2895]
        assert tokenizer("The <s> token </s> here").input_ids == [139, 2, 10844, 105, 191, 116, 2314, 264]
        assert tokenizer("x [12] y (3)").input_ids == [1026, 65077, 50558, 5209, 9827]
        assert tokenizer.decode([8087, 278, 107, 106, 3056, 540]) == "Hello world. \nNew line"
        flagged = kind(vocabulary, substitute_newline="")
        assert flagged("Hello world.\nNew line").input_ids == [8087, 278, 107, 351, 540]


@pytest.mark.peer
@pytest.mark.parametrize("offset", [0, 103])
def test_transformers_differ_where_it_is_named(vocab: Path, offset: int) -> None:
    transformers = pytest.importorskip("transformers")
    own = {"offset": 0, "mask_token_sent": None, **NAMED} if not offset else {"offset": offset}
    peers = transformers.PegasusTokenizer(str(vocab), **own), transformers.PegasusTokenizerFast(str(vocab), **own)
    ours = BigBirdPegasusTokenizer(vocab, offset=offset, **AS_TRANSFORMERS)
    counts: Counter[str] = Counter()
    texts = corpus(6 if vocab.name == "fixture.model" else 1)
    for text in texts:
        ids = ours(text).input_ids
        if ids != peers[0](text)["input_ids"]:
            assert ANY_SPECIAL.search(text), text[:100]
            counts["slow"] += 1
        if ids != peers[1](text)["input_ids"]:
            found = [reason for reason, pattern in REASONS.items() if pattern.search(text)]
            assert found, text[:100]
            counts.update(found)
        else:
            counts["same"] += 1
    assert counts["same"] >= len(texts) / 3
    assert all(counts[reason] for reason in REASONS), counts
    for text in RULES:  # and the three that are options here
        plain = BigBirdPegasusTokenizer(vocab, offset=offset)(text).input_ids
        assert plain != peers[0](text)["input_ids"]
    # 103: the ids of pieces, names and reserved tokens are transformers'
    names = {name for name in ours.special_tokens_map if name in peers[0].special_tokens_map}
    assert {name: getattr(ours, f"{name}_id") for name in names if name != "additional_special_tokens"} == {
        name: getattr(peers[0], f"{name}_id") for name in names if name != "additional_special_tokens"
    }
    assert len(ours) == len(peers[0])


@pytest.mark.parametrize("kind", KINDS)
def test_summaries_end_and_documents_do_not(kind, slow, vocab: Path) -> None:
    tokenizer = kind(vocab)
    text, other = "the good world", "a little school for people without three houses"
    plain, longer = slow.encode(text), slow.encode(other)
    assert 1 not in plain + longer
    assert tokenizer(text_target=text).input_ids == [*plain, 1]
    both = tokenizer([text, other], text_target=[other, text], padding=True)
    assert both.labels == [[*longer, 1], [*plain, 1, *[0] * (len(longer) - len(plain))]]
    assert both.input_ids == [[*plain, *[0] * (len(longer) - len(plain))], longer]
    assert kind(vocab, end_documents=True)([text, other]).input_ids == [[*plain, 1], [*longer, 1]]
    # an end comes before the cut, as in the original
    cut = tokenizer(text_target=[other, text], max_length=len(plain) + 1, truncation=True, padding="max_length")
    assert cut.input_ids == [[*longer, 1][: len(plain) + 1], [*plain, 1]]
    assert len(longer) > len(plain)
    assert tokenizer(text_target=text, add_special_tokens=False).input_ids == plain
    assert tokenizer(text).input_ids == plain  # nothing is left of it
    left = kind(vocab, padding_side="left", truncation_side="left")
    assert left(text_target=[other, text], max_length=3, truncation=True).input_ids[0] == [*longer, 1][-3:]
    windows = tokenizer(text_target=other, max_length=3, truncation=True, stride=1, return_overflowing_tokens=True)
    assert windows.input_ids[1][0] == windows.input_ids[0][-1]
    assert windows.input_ids[-1][-1] == 1
    assert tokenizer(text, return_tensors="np", text_target=other).labels.shape == (1, len(longer) + 1)
    with pytest.raises(ValueError, match="give text, text_target or both"):
        tokenizer()
    with pytest.raises(ValueError, match="stride is 3"):
        tokenizer(text_target=other, max_length=3, truncation=True, stride=3, return_overflowing_tokens=True)


def test_rows_and_masks(slow, fast) -> None:
    for tokenizer in (slow, fast):
        assert tokenizer.build_inputs_with_special_tokens([5, 6], [7]) == [5, 6, 7]
        assert tokenizer.get_special_tokens_mask([5, 6]) == [0, 0]
        assert tokenizer.get_special_tokens_mask([5, 1, 0], already_has_special_tokens=True) == [0, 1, 1]
        assert tokenizer.create_token_type_ids_from_sequences([5], [6]) == [0, 0]
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 105)
        assert tokenizer.decode([1, 0], skip_special_tokens=True) == ""


def test_offsets_are_known_unless_the_library_normalises_otherwise(fast) -> None:
    text = "the\nworld [1] upon"
    row = fast(text, return_offsets_mapping=True)
    spans = [text[start:end].strip() for start, end in row["offset_mapping"]]
    assert "\n" in text[row["offset_mapping"][1][0] : row["offset_mapping"][1][1]]
    assert spans[0] == "the"
    assert "upon".startswith(spans[-1]) or spans[-1] in "upon"
    assert fast(ACCENTS[0]).encodings is None
    with pytest.raises(ValueError, match="return_offsets_mapping: a text has several accents"):
        fast(ACCENTS[0], return_offsets_mapping=True)
    with pytest.raises(ValueError, match="words and offsets are not known"):
        fast(ACCENTS[0]).word_ids()


@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_are_found_before_the_rules(kind, vocab: Path, tmp_path: Path) -> None:
    tokenizer = kind(vocab)
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<new>", "[also]"]) == 2
    ids = tokenizer("the <new> world [also]").input_ids
    assert (ids.count(size), ids.count(size + 1)) == (1, 1)
    assert tokenizer(f"{ACCENTS[0]} <new>").input_ids[-1] == size
    tokenizer.save_pretrained(tmp_path)
    for again in KINDS:
        assert again.from_pretrained(tmp_path)("the <new> world [also]").input_ids == ids
    assert pickle.loads(pickle.dumps(tokenizer))("the <new> world [also]").input_ids == ids


@pytest.mark.parametrize("offset", [0, 103])
def test_save_and_load(vocab: Path, tmp_path: Path, offset: int) -> None:
    settings = {"offset": offset, "end_documents": True, "tight_brackets": False, "substitute_newline": ""}
    for number, kind in enumerate(KINDS):
        tokenizer = kind(vocab, model_max_length=77, **settings)
        tokenizer.save_pretrained(tmp_path / str(number))
        for other in KINDS:
            again = other.from_pretrained(tmp_path / str(number))
            assert {name: getattr(again, name) for name in settings} == settings
            assert again.model_max_length == 77
            assert again.special_tokens_map == tokenizer.special_tokens_map
            assert again.added_tokens_decoder == tokenizer.added_tokens_decoder
            assert [again.encode(text) for text in corpus(41)] == list(map(tokenizer.encode, corpus(41)))
    (tmp_path / "1" / "spiece.model").unlink()
    alone = BigBirdPegasusTokenizerFast.from_pretrained(tmp_path / "1")
    assert alone.encode("the good\nworld") == tokenizer.encode("the good\nworld")


@pytest.mark.peer
def test_auto_tokenizer_loads_the_folder(vocab: Path, slow, tmp_path: Path) -> None:
    """transformers ends every row; what it reads in special tokens that a text spells is another thing."""
    transformers = pytest.importorskip("transformers")
    assert write_tokenizer_files(vocab, tmp_path, kind="BigBirdPegasusTokenizer") == FILES
    assert (tmp_path / "spiece.model").read_bytes() == vocab.read_bytes()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bigbird_pegasus"}))
    texts = [text for text in corpus(11) if not ANY_SPECIAL.search(text) and text not in ACCENTS]
    as_slow = BigBirdPegasusTokenizer(vocab, **AS_TRANSFORMERS)
    for use_fast, expected in ((True, slow), (False, as_slow)):
        peer = transformers.AutoTokenizer.from_pretrained(tmp_path, use_fast=use_fast)
        assert type(peer).__name__ == "PegasusTokenizer" + "Fast" * use_fast
        assert (len(peer), peer.pad_token_id, peer.eos_token_id) == (len(slow), 0, 1)
        for text in texts:
            ids = expected(text_target=text).input_ids if use_fast else expected(text).input_ids
            assert peer(text)["input_ids"] == ids, text[:100]


@pytest.mark.peer
def test_folders_that_transformers_wrote(vocab: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = [text for text in corpus(41) if not ANY_SPECIAL.search(text)]
    for offset, own in ((0, {"offset": 0, "mask_token_sent": None, **NAMED}), (103, {})):
        peer = transformers.PegasusTokenizer(str(vocab), model_max_length=77, **own)
        peer.save_pretrained(tmp_path / str(offset))
        for kind in KINDS:
            tokenizer = kind.from_pretrained(tmp_path / str(offset), **AS_TRANSFORMERS)
            assert (tokenizer.offset, tokenizer.model_max_length, len(tokenizer)) == (offset, 77, len(peer))
            assert [tokenizer(text).input_ids for text in texts] == [peer(text)["input_ids"] for text in texts]
        masked = tokenizer("a <mask_1> b").input_ids
        assert (2 in masked) == (offset == 103)


def test_what_is_carried(vocab: Path, tmp_path: Path) -> None:
    options = {"kind": "BigBirdPegasusTokenizer", "told": {"substitute_newline": ""}}
    carried = carry_tokenizer(vocab, tmp_path, 64, 100_000, **options)
    assert (carried.notes, carried.added) == ((), {})
    assert carried.slow.substitute_newline == "" == carried.fast.substitute_newline
    assert carried.flags({"substitute_newline": "<n>", "alpha": 1}) == {"substitute_newline": None}
    BigBirdPegasusTokenizer(vocab).save_pretrained(tmp_path)  # a folder says what is so
    assert carry_tokenizer(vocab, tmp_path, 64, 100_000, **options).slow.substitute_newline == "<n>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    assert "names T5Tokenizer" in carry_tokenizer(vocab, tmp_path, **options).notes[0]
    with pytest.raises(ValueError, match="the model has 100 word embeddings"):
        carry_tokenizer(vocab, tmp_path / "..", 64, 100, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_errors(kind, vocab: Path) -> None:
    with pytest.raises(ValueError, match="offset is 1, expected 0"):
        kind(vocab, offset=1)
    with pytest.raises(ValueError, match=r"pad_token is '<padding>', which the vocabulary"):
        kind(vocab, pad_token="<padding>")
    with pytest.raises(ValueError, match="unknown tokenizer arguments.*substitute_newline"):
        kind(vocab, newline="<n>")
    assert kind(vocab).cls_token == "[CLS]"
    assert BigBirdTokenizer(vocab).cls_token == "[CLS]"
