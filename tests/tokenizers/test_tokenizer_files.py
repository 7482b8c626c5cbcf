"""Construction, folders, pickles and sampling, and what transformers and the library make of the files."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from tokenizer_corpus import strings

from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast, write_tokenizer_files
from bigbird_port.tokenizers.files import carry_tokenizer

FILES = ["special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"]
SAMPLE = strings()[::23]


@pytest.fixture
def folder(vocab: Path, tmp_path: Path) -> Path:
    assert write_tokenizer_files(vocab, tmp_path) == FILES
    return tmp_path


def test_folder_has_the_files(folder: Path, vocab: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert (folder / "spiece.model").read_bytes() == vocab.read_bytes()


@pytest.mark.peer
@pytest.mark.parametrize("with_config", [False, True])
def test_auto_tokenizer_loads_the_folder(folder: Path, slow: BigBirdTokenizer, with_config: bool) -> None:
    transformers = pytest.importorskip("transformers")
    if with_config:
        (folder / "config.json").write_text(json.dumps({"model_type": "big_bird"}))
    for use_fast, name in ((True, "BigBirdTokenizerFast"), (False, "BigBirdTokenizer")):
        peer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=use_fast)
        assert type(peer).__name__ == name
        assert peer.all_special_tokens == slow.all_special_tokens
        assert peer.all_special_ids == slow.all_special_ids
        for text in SAMPLE:
            # transformers' slow one strips these before [MASK], see test_tokenizer_peer.
            text = re.sub(r"[\x1c-\x1f]\s*\[MASK\]", "[MASK]", text)
            assert peer(text)["input_ids"] == slow.encode(text), (use_fast, text[:100])
            assert peer(text, "again")["input_ids"] == slow.encode(text, "again"), (use_fast, text[:100])


@pytest.mark.peer
def test_folders_that_transformers_wrote(vocab: Path, tmp_path: Path, slow: BigBirdTokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    for peer in (transformers.BigBirdTokenizer, transformers.BigBirdTokenizerFast):
        peer(str(vocab), model_max_length=77, padding_side="left").save_pretrained(tmp_path)
        for ours in (BigBirdTokenizer, BigBirdTokenizerFast):
            tokenizer = ours.from_pretrained(tmp_path)
            assert tokenizer.model_max_length == 77
            assert tokenizer.padding_side == "left"
            assert [tokenizer.encode(text) for text in SAMPLE] == [slow.encode(text) for text in SAMPLE]


def test_library_loads_tokenizer_json(folder: Path, slow: BigBirdTokenizer) -> None:
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert library.truncation is None
    assert library.padding is None
    for text in SAMPLE:
        assert library.encode(text).ids == slow.encode(text)
        assert library.encode(text, "b").ids == slow.encode(text, "b")
    fast = BigBirdTokenizerFast(tokenizer_file=folder / "tokenizer.json")
    assert [fast.encode(text) for text in SAMPLE] == [slow.encode(text) for text in SAMPLE]
    with pytest.raises(ValueError, match="give vocab_file too"):
        fast.save_vocabulary(folder)
    (folder / "spiece.model").unlink()
    assert BigBirdTokenizerFast.from_pretrained(folder).encode("a b") == slow.encode("a b")


@pytest.mark.parametrize("kind", [BigBirdTokenizer, BigBirdTokenizerFast])
def test_save_and_load(kind, vocab: Path, tmp_path: Path) -> None:
    settings = {
        "model_max_length": 9,
        "padding_side": "left",
        "truncation_side": "left",
        "clean_up_tokenization_spaces": True,
    }
    tokenizer = kind(vocab, cls_token="<s>", **settings)
    tokenizer("a b c", truncation=True, padding="max_length")
    written = tokenizer.save_pretrained(tmp_path / "new" / "folder")
    assert all(Path(path).is_file() for path in written)
    again = kind.from_pretrained(tmp_path / "new" / "folder")
    for name, value in settings.items():
        assert getattr(again, name) == value
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again.encode("a [MASK] b") == tokenizer.encode("a [MASK] b")
    assert again.encode("a")[0] == again.bos_token_id
    assert kind.from_pretrained(tmp_path / "new" / "folder", padding_side="right").padding_side == "right"
    path = tokenizer.save_vocabulary(tmp_path, filename_prefix="x")[0]
    assert Path(path) == tmp_path / "x-spiece.model"
    assert Path(path).read_bytes() == vocab.read_bytes()


@pytest.mark.parametrize("kind", [BigBirdTokenizer, BigBirdTokenizerFast])
def test_pickle_outlives_the_file(kind, vocab: Path, tmp_path: Path) -> None:
    copy = tmp_path / "spiece.model"
    copy.write_bytes(vocab.read_bytes())
    tokenizer = kind(copy, padding_side="left")
    copy.unlink()
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.padding_side == "left"
    assert [again.encode(text) for text in SAMPLE] == [tokenizer.encode(text) for text in SAMPLE]
    batch = pickle.loads(pickle.dumps(again(["a", "b c"], padding=True)))
    assert batch.input_ids == again(["a", "b c"], padding=True).input_ids
    again.save_vocabulary(tmp_path)
    assert copy.read_bytes() == vocab.read_bytes()


def test_sampling(vocab: Path, slow: BigBirdTokenizer) -> None:
    options = {"enable_sampling": True, "nbest_size": -1, "alpha": 0.1}
    text = "internationalisation of the general school"
    for tokenizer in (
        BigBirdTokenizer(vocab, sp_model_kwargs=options),
        pickle.loads(pickle.dumps(BigBirdTokenizer(vocab, sp_model_kwargs=options))),
    ):
        rows = [tokenizer.encode(text) for _ in range(20)]
        assert len({tuple(row) for row in rows}) > 1
        assert {tokenizer.decode(row, skip_special_tokens=True) for row in rows} == {text}
    assert len({tuple(slow.encode(text)) for _ in range(5)}) == 1
    with pytest.raises(ValueError, match=r"sp_model_kwargs.*enable_sampling"):
        BigBirdTokenizer(vocab, sp_model_kwargs={"sampling": True})


@pytest.mark.parametrize("kind", [BigBirdTokenizer, BigBirdTokenizerFast])
def test_errors_of_construction(kind, fixture_vocab: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.model"
    for content in (b"", b"not a model", bytes(1000), fixture_vocab.read_bytes()[:-5]):
        wrong.write_bytes(content)
        with pytest.raises(ValueError, match=r"wrong\.model: is not a SentencePiece model"):
            kind(wrong)
    with pytest.raises(ValueError, match=r"absent\.model: the vocabulary cannot be read"):
        kind(tmp_path / "absent.model")
    with pytest.raises(ValueError, match=r"cls_token is '\[cls\]', which the vocabulary of \d+ pieces does not have"):
        kind(fixture_vocab, cls_token="[cls]")
    with pytest.raises(ValueError, match=r"unknown tokenizer arguments \['do_lower_case'\]"):
        kind(fixture_vocab, do_lower_case=True)
    with pytest.raises(ValueError, match="padding_side is 'top'"):
        kind(fixture_vocab, padding_side="top")
    with pytest.raises(ValueError, match="no such folder"):
        kind.from_pretrained(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"spiece\.model: the vocabulary cannot be read"):
        kind.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        kind(fixture_vocab).save_vocabulary(tmp_path / "absent")
    with pytest.raises(ValueError, match="cannot be made a folder"):
        kind(fixture_vocab).save_pretrained(wrong)
    kind(fixture_vocab).save_pretrained(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<new>": 999}')
    with pytest.raises(ValueError, match=r"added_tokens\.json: has '<new>' with id 999.*not at all"):
        kind.from_pretrained(tmp_path)


def test_errors_of_the_fast_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a vocab_file"):
        BigBirdTokenizerFast()
    with pytest.raises(ValueError, match=r"tokenizer\.json: cannot be read"):
        BigBirdTokenizerFast(tokenizer_file=tmp_path / "tokenizer.json")
    for content in ("{}", "text"):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ValueError, match=r"tokenizer\.json.*that the tokenizers library loads"):
            BigBirdTokenizerFast(tokenizer_file=tmp_path / "tokenizer.json")


def train(path: Path, **options) -> Path:
    lines = ["the quick brown fox jumps over the lazy dog", "a man a plan a canal", "[CLS] [SEP] [MASK]"] * 9
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(path / "other"),
        minloglevel=2,
        **(
            {
                "model_type": "unigram",
                "vocab_size": 40,
                "normalization_rule_name": "identity",
                "hard_vocab_limit": False,
                "pad_id": 3,
                "user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"],
            }
            | options
        ),
    )
    return path / "other.model"


OTHERS = {
    "nmt_nfkc": {"normalization_rule_name": "nmt_nfkc"},
    "bpe": {"model_type": "bpe", "hard_vocab_limit": True},
    "bytes": {"byte_fallback": True, "vocab_size": 320},
    "no space in front": {"add_dummy_prefix": False},
    "all spaces kept": {"remove_extra_whitespaces": False},
    "a control piece": {"control_symbols": ["<ctrl>"]},
}


@pytest.mark.peer
@pytest.mark.parametrize("name", OTHERS)
def test_other_vocabularies_have_the_slow_tokenizer_alone(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    vocab = train(tmp_path, **OTHERS[name])
    slow, peer = BigBirdTokenizer(vocab), transformers.BigBirdTokenizer(str(vocab))
    texts = [re.sub(r"[\x1c-\x1f]\s*\[MASK\]", "[MASK]", text) for text in (*SAMPLE, "<ctrl>", "\uff46\u0301 \uff4fx")]
    for text in texts:
        assert slow.encode(text) == peer(text)["input_ids"], text[:100]
        assert slow.decode(slow.encode(text)) == peer.decode(slow.encode(text)), text[:100]
    with pytest.raises(ValueError, match="use BigBirdTokenizer"):
        BigBirdTokenizerFast(vocab)
    assert write_tokenizer_files(vocab, tmp_path) == [file for file in FILES if file != "tokenizer.json"]
    notes = carry_tokenizer(vocab, tmp_path).notes
    assert any(note.startswith("only the slow tokenizer is written, without tokenizer.json") for note in notes)
    assert [BigBirdTokenizer.from_pretrained(tmp_path).encode(text) for text in texts] == list(map(slow.encode, texts))


def test_own_scores_without_a_normaliser_have_both(tmp_path: Path) -> None:
    vocab = train(tmp_path)
    slow, fast = BigBirdTokenizer(vocab), BigBirdTokenizerFast(vocab)
    assert [slow.encode(text) for text in SAMPLE] == [fast.encode(text) for text in SAMPLE]


def test_vocabulary_without_the_special_tokens(tmp_path: Path) -> None:
    carried = carry_tokenizer(train(tmp_path, user_defined_symbols=[], vocab_size=60), tmp_path)
    assert carried.write(tmp_path) == []
    assert re.match(r"no tokenizer is written, because sep_token is '\[SEP\]'", carried.notes[0])


def test_import_is_light() -> None:
    script = (
        "import sys, bigbird_port.tokenizers\n"
        "found = {'torch', 'jax', 'flax', 'transformers', 'tensorflow'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(found)}' if found else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
