"""Tokenizers through convert: added tokens arrive, the manifest lists them, and what does not fit is named."""

from __future__ import annotations

import json
import shutil

import pytest

from bigbird_port.conversion.convert import Settings, convert, make_plan
from bigbird_port.conversion.verify import verify
from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast
from tests.conversion.brought.sources import CONFIG, change_manifest, numbered, write_torch
from tests.vocabulary import train_vocabulary

TEXTS = ["the <table> of the world", "x<table>y covid19", "<doc> [MASK]", "covid19covid19 ", "home again"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A torch folder whose tokenizer has three added tokens, and embeddings for them."""
    folder = tmp_path_factory.mktemp("carried")
    (folder / "spiece.model").write_bytes(train_vocabulary())
    tokenizer = BigBirdTokenizerFast(folder / "spiece.model", padding_side="left", model_max_length=77)
    tokenizer.add_tokens(["<table>", "covid19"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<doc>"]})
    config = CONFIG.replace(vocab_size=len(tokenizer))
    tokenizer.save_pretrained(write_torch(folder / "source", numbered(config=config), config=config))
    return folder / "source"


@pytest.fixture
def changed(source, tmp_path):
    return shutil.copytree(source, tmp_path / "changed")


def notes(source, **settings):
    return "\n".join(make_plan(source, Settings(**settings)).notes)


def test_added_tokens_arrive_in_every_target_and_go_on_from_there(source, tmp_path):
    expected = BigBirdTokenizer.from_pretrained(source)
    convert(source, tmp_path / "one", Settings(to=("torch", "flax", "neutral")))
    convert(tmp_path / "one" / "flax", tmp_path / "two", Settings(to=("torch",)))
    for folder in ("one/torch", "one/flax", "one/neutral", "two/torch"):
        for kind in (BigBirdTokenizer, BigBirdTokenizerFast):
            tokenizer = kind.from_pretrained(tmp_path / folder)
            assert [tokenizer.encode(text) for text in TEXTS] == [expected.encode(text) for text in TEXTS]
            assert (tokenizer.padding_side, tokenizer.model_max_length) == ("left", 77)
            assert tokenizer.get_added_vocab() == expected.get_added_vocab()
    listed = json.loads((tmp_path / "one" / "manifest.json").read_text())["added_tokens"]
    assert {token["content"]: token["id"] for token in listed} == {
        name: expected.convert_tokens_to_ids(name) for name in ("<table>", "covid19", "<doc>")
    }
    assert verify(tmp_path / "one", source).passed


def test_verify_sees_another_token_in_the_manifest(source, tmp_path):
    convert(source, tmp_path / "out", Settings(to=("torch",)))
    change_manifest(tmp_path / "out", lambda values: values["added_tokens"][0].update(content="<other>"))
    failed = {check.name: check.detail for check in verify(tmp_path / "out").checks if not check.passed}
    assert list(failed) == ["torch configuration"]
    assert "'<other>'" in failed["torch configuration"]


def test_tf_says_what_it_does_not_carry(source):
    assert "tf: the original has a SentencePiece vocabulary alone" in notes(source, to=("tf",))
    assert "goes without '<table>'" in notes(source, to=("tf",))
    assert "goes without" not in notes(source)


def test_tokens_beyond_the_embeddings_are_named(changed):
    tokenizer = BigBirdTokenizerFast.from_pretrained(changed)
    tokenizer.add_tokens(["<over>"])
    tokenizer.save_pretrained(changed)
    number = len(tokenizer) - 1
    with pytest.raises(ValueError, match=rf"adds '<over>' \({number}\), but the model has {number} word embeddings"):
        make_plan(changed)


def test_tokenizer_json_alone(source, changed, tmp_path):
    (changed / "spiece.model").unlink()
    said = notes(changed, to=("torch", "tf"))
    assert "only the fast tokenizer is written, from tokenizer.json" in said
    assert "tf: the original reads no tokenizer.json" in said
    convert(changed, tmp_path / "out", Settings(to=("torch",)))
    assert not (tmp_path / "out" / "torch" / "spiece.model").exists()
    expected = BigBirdTokenizer.from_pretrained(source)
    fast = BigBirdTokenizerFast.from_pretrained(tmp_path / "out" / "torch")
    assert [fast.encode(text) for text in TEXTS] == [expected.encode(text) for text in TEXTS]
    assert verify(tmp_path / "out").passed


def test_another_class_is_not_taken_for_bigbirds(changed, tmp_path):
    file = changed / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "XLMRobertaTokenizer"}))
    assert "no tokenizer is written, because" in notes(changed)
    assert "names XLMRobertaTokenizer" in notes(changed)
    convert(changed, tmp_path / "out", Settings(to=("torch",)))
    assert not (tmp_path / "out" / "torch" / "spiece.model").exists()
    with pytest.raises(ValueError, match=r"--vocab .*names XLMRobertaTokenizer"):
        make_plan(changed, Settings(vocab=changed / "spiece.model"))
