"""Added tokens and assigned special tokens: transformers' ids in every position, through files and back."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken

from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast

PLAIN = ["<table>", "</table>", "covid19", "the", AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True)]
SPECIAL = ["<doc>", AddedToken("[Q]", special=True)]
NAMES = ["<table>", "</table>", "covid19", "the", "<left>", "<right>", "<doc>", "[Q]", "[MASK]", "<s>"]
KINDS = [BigBirdTokenizer, BigBirdTokenizerFast]


def texts() -> list[str]:
    frames = ["{}", " {} ", "x{}y", "of {}  of", "of{}[MASK]", "{0}{0}", "{0} {0}", "\n{}\t", "{}.", "<{}>"]
    placed = [frame.format(name) for frame, name in itertools.product(frames, NAMES)]
    choose = random.Random(11)
    parts = [*NAMES, "of", "house", " ", "  ", "\n", "é", "<table", "ovid19", "▁"]
    return placed + ["".join(choose.choices(parts, k=choose.randint(2, 9))) for _ in range(300)]


def with_added(tokenizer):
    assert tokenizer.add_tokens(PLAIN) == 6
    assert tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL}) == 2
    return tokenizer


@pytest.fixture
def peer(fixture_vocab: Path):
    return with_added(pytest.importorskip("transformers").BigBirdTokenizer(str(fixture_vocab)))


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
def test_ids_against_transformers(kind, fixture_vocab: Path, peer, tmp_path: Path) -> None:
    ours = with_added(kind(fixture_vocab))
    ours.save_pretrained(tmp_path)
    for tokenizer in (ours, kind.from_pretrained(tmp_path), pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        for name in ("all_special_tokens", "all_special_ids", "additional_special_tokens", "vocab_size"):
            assert getattr(tokenizer, name) == getattr(peer, name)
        assert tokenizer.additional_special_tokens_ids == peer.additional_special_tokens_ids
        assert tokenizer.get_added_vocab() == peer.get_added_vocab()
        assert tokenizer.get_vocab() == peer.get_vocab()
        assert len(tokenizer) == len(peer) == tokenizer.vocab_size + 8
        for text in texts():
            ids = peer(text)["input_ids"]
            assert tokenizer.encode(text) == ids, text
            assert tokenizer.tokenize(text) == peer.tokenize(text), text
            for skip in (False, True):
                assert tokenizer.decode(ids, skip) == peer.decode(ids, skip), text


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use_fast", [False, True])
def test_transformers_loads_what_is_saved(kind, use_fast: bool, fixture_vocab: Path, peer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    written = with_added(kind(fixture_vocab)).save_pretrained(tmp_path)
    assert tmp_path / "added_tokens.json" in map(Path, written)
    (tmp_path / "tokenizer.json").unlink(missing_ok=not use_fast) if not use_fast else None
    if use_fast and kind is BigBirdTokenizer:
        pytest.skip("the slow tokenizer writes no tokenizer.json: transformers then makes a fast one of its own")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path, use_fast=use_fast)
    for text in texts():
        assert loaded(text)["input_ids"] == peer(text)["input_ids"], text


def legacy(path: Path) -> None:
    """What transformers wrote before tokenizer_config.json had all added tokens."""
    settings = json.loads((path / "tokenizer_config.json").read_text())
    del settings["added_tokens_decoder"], settings["additional_special_tokens"]
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


def library_alone(path: Path) -> None:
    pytest.importorskip("transformers").AutoTokenizer.from_pretrained(path).save_pretrained(path)
    legacy(path)
    (path / "added_tokens.json").unlink()


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [lambda path: None, legacy, library_alone], ids=["new", "legacy", "tokenizer.json"])
def test_folders_of_transformers(kind, change, fixture_vocab: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    peer = transformers.BigBirdTokenizer(str(fixture_vocab))
    peer.add_tokens(["<table>", "covid19"])
    peer.add_special_tokens({"additional_special_tokens": ["<doc>"]})
    peer.save_pretrained(tmp_path)
    change(tmp_path)
    tokenizer = kind.from_pretrained(tmp_path)
    assert tokenizer.additional_special_tokens == ["<doc>"]
    for text in texts():
        assert tokenizer.encode(text) == peer(text)["input_ids"], text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", ["<table>", "<doc>", "covid19"])
def test_a_token_that_is_dropped_is_seen(kind, lost: str, fixture_vocab: Path, tmp_path: Path) -> None:
    whole = with_added(kind(fixture_vocab))
    whole.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    last = str(whole.convert_tokens_to_ids(lost))
    del settings["added_tokens_decoder"][last]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.json", "added_tokens.json"):
        if (tmp_path / name).exists():
            with pytest.raises(ValueError, match="added_tokens"):
                BigBirdTokenizer.from_pretrained(tmp_path)
            (tmp_path / name).unlink()
    settings["additional_special_tokens"].remove(lost) if lost == "<doc>" else None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "special_tokens_map.json").unlink()
    without = BigBirdTokenizer.from_pretrained(tmp_path)
    assert any(without.encode(text) != whole.encode(text) for text in texts())


@pytest.mark.parametrize("kind", KINDS)
def test_single_words_are_not_found_inside_words(kind, fixture_vocab: Path) -> None:
    tokenizer = kind(fixture_vocab)
    tokenizer.add_tokens([AddedToken("covid", single_word=True)])
    number = tokenizer.convert_tokens_to_ids("covid")
    found = {text: number in tokenizer.encode(text) for text in ("covid", "a covid.", "covids", "_covid", "xcovid")}
    assert found == {"covid": True, "a covid.": True, "covids": False, "_covid": False, "xcovid": False}


@pytest.mark.parametrize("kind", KINDS)
def test_an_assigned_special_token_counts_everywhere(kind, fixture_vocab: Path, tmp_path: Path) -> None:
    tokenizer = kind(fixture_vocab)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.cls_token_id = tokenizer.bos_token_id
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, kind.from_pretrained(tmp_path)):
        assert one.pad_token_id == one.eos_token_id
        assert one.pad_token_id != 0
        assert one("a", padding="max_length", max_length=6)["input_ids"][-1] == one.eos_token_id
        assert one.pad({"input_ids": [5]}, padding="max_length", max_length=2)["input_ids"] == [5, one.eos_token_id]
        assert one.encode("a")[0] == one.cls_token_id == one.bos_token_id
        assert one.special_tokens_map["pad_token"] == "</s>"
        assert "<pad>" not in one.all_special_tokens
        assert 0 not in one.all_special_ids
        row = one.encode("a <pad> </s>")
        assert one.get_special_tokens_mask(row, already_has_special_tokens=True)[-3:] == [0, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_name_the_way(kind, fixture_vocab: Path) -> None:
    tokenizer = kind(fixture_vocab)
    for name in ("pad_token", "additional_special_tokens"):
        with pytest.raises(ValueError, match=rf"{name} is '<new>'.*add_special_tokens"):
            setattr(tokenizer, name, "<new>")
    with pytest.raises(ValueError, match=r"pad_token_id is 9999, which no token .*add_special_tokens"):
        tokenizer.pad_token_id = 9999
    with pytest.raises(ValueError, match="pad_token is None"):
        tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"'pad' is 'x', expected one of bos_token"):
        tokenizer.add_special_tokens({"pad": "x"})
    for wrong in ("", 3, [None]):
        with pytest.raises(ValueError, match="new_tokens holds"):
            tokenizer.add_tokens(wrong)
    assert tokenizer.add_special_tokens({"pad_token": "<new>"}) == 1
    assert tokenizer.pad_token_id == len(tokenizer) - 1 == tokenizer.vocab_size
    assert tokenizer.add_tokens(["<new>", "<new>"]) == 0


def test_ids_with_gaps_are_the_slow_tokenizers_alone(fixture_vocab: Path, tmp_path: Path) -> None:
    decoder = {5000: AddedToken("<far>", normalized=False)}
    slow = BigBirdTokenizer(fixture_vocab, added_tokens_decoder=decoder)
    assert slow.encode("<far>")[1] == 5000
    with pytest.raises(ValueError, match=r"'<far>' has id 5000.*use BigBirdTokenizer"):
        BigBirdTokenizerFast(fixture_vocab, added_tokens_decoder=decoder)
