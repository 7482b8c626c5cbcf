"""Vocabularies through convert, and real text through parity."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.formats.tensorflow.locate import find_vocabulary
from bigbird_port.models.folder import WEIGHT_FILES, write_model_folder
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import weights_of
from bigbird_port.tokenizers import BigBirdTokenizerFast, write_tokenizer_files
from parity.given.text import question_inputs, text_inputs
from tests.conftest import DEMO
from tests.tokenizers.tokenizer_corpus import WORDS
from tests.vocabulary import train_vocabulary

FILES = ["special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"]
CONFIG = BigBirdConfig(
    vocab_size=500,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=768,
    block_size=16,
    sep_token_id=12,
    initializer_range=0.2,
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "small.model"
    path.write_bytes(train_vocabulary())
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory, vocabulary):
    """A model with a vocabulary of its own size, as convert would write it."""
    out = tmp_path_factory.mktemp("model")
    weights = {row.name: initial_value(row, CONFIG, 0) for row in weights_of(CONFIG, "qa")}
    for framework in WEIGHT_FILES:
        (out / framework).mkdir()
        write_model_folder(out / framework, weights, CONFIG, "qa", framework)
        assert write_tokenizer_files(vocabulary, out / framework, 768, CONFIG.vocab_size) == FILES
    return out


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(WORDS * 40), encoding="utf-8")
    return path


def parity(*arguments):
    return CliRunner().invoke(main, ["parity", *map(str, arguments), "--no-conditions"])


def test_a_long_text_fills_the_model(out, text_file):
    inputs = text_inputs(out, text_file, None)
    assert inputs["input_ids"].shape == (1, 768)
    tokenizer = BigBirdTokenizerFast.from_pretrained(out / "torch")
    ids = inputs["input_ids"][0].tolist()
    assert ids == tokenizer(text_file.read_text(), truncation=True, max_length=768)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert text_inputs(out, text_file, 100)["input_ids"].shape == (1, 100)


def test_a_question_keeps_its_length_and_types(out, text_file):
    inputs = question_inputs(out, WORDS[0], text_file, 600)
    ids, types = inputs["input_ids"][0], inputs["token_type_ids"][0]
    (length,) = inputs["question_lengths"]
    tokenizer = BigBirdTokenizerFast.from_pretrained(out / "torch")
    assert ids[length - 1] == tokenizer.sep_token_id
    assert not types[:length].any()
    assert types[length:].all()
    assert len(ids) == 600


def test_real_text_runs_through_both_frameworks(out, text_file):
    result = parity(out, "--head", "qa", "--question", WORDS[1], "--context", text_file, "--length", 640)
    assert result.exit_code == 0, result.output
    assert "1 x 640 tokens (given" in result.output
    result = parity(out, "--head", "base", "--text", text_file, "--length", 600)
    assert result.exit_code == 0, result.output
    assert "1 x 600 tokens (given" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--question", "why"], "--question and --context go together"),
        (["--context", "x.txt"], "--question and --context go together"),
        (["--text", "x.txt", "--inputs", "y.json"], "--inputs and --text exclude each other"),
        (["--text", "absent.txt"], "absent.txt: expected a text in UTF-8"),
    ],
)
def test_bad_usage_is_said(out, arguments, message):
    result = parity(out, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_model_without_tokenizer_says_how_to_get_one(converted, text_file):
    result = parity(converted("mini-pretrain"), "--text", text_file)
    assert result.exit_code == 2
    assert "convert with --vocab FILE" in result.output


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path, vocabulary):
    with pytest.raises(ValueError, match=r"small\.model: it has \d+ pieces, but the model has 80 word embeddings"):
        convert(DEMO, tmp_path / "out", Settings(vocab=vocabulary))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def large(tmp_path, vocabulary):
    """A checkpoint folder, whose model is too small for the vocabulary: where that lies is all that is asked."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in DEMO.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def vocabulary_of(folder):
    return find_vocabulary(folder / "model.ckpt-30", folder / "pretrain.config")


def test_where_the_vocabulary_is_found(large, vocabulary):
    assert vocabulary_of(large) is None
    flags = json.loads((large / "pretrain.config").read_text())
    (large / "pretrain.config").write_text(json.dumps(flags | {"vocab_model_file": "/far/away/words.model"}))
    assert vocabulary_of(large) is None
    (large / "words.model").write_bytes(vocabulary.read_bytes())
    assert vocabulary_of(large) == large / "words.model"  # the flags' path is that of another machine
    (large / "other.model").write_bytes(vocabulary.read_bytes())
    assert vocabulary_of(large) == large / "words.model"
    (large / "pretrain.config").write_text(json.dumps(flags | {"vocab_model_file": "elsewhere/other"}))
    assert vocabulary_of(large) == large / "other.model"
    (large / "pretrain.config").write_text(json.dumps(flags))
    with pytest.raises(ValueError, match=r"several vocabularies lie beside.*--vocab"):
        vocabulary_of(large)


def test_a_file_elsewhere_is_not_taken_for_the_vocabulary(large, vocabulary):
    """Flags or links of a stranger's folder could name any file of this machine."""
    flags = json.loads((large / "pretrain.config").read_text())
    (large / "pretrain.config").write_text(json.dumps(flags | {"vocab_model_file": str(vocabulary)}))
    assert vocabulary_of(large) is None
    (large / "linked.model").symlink_to(vocabulary)
    with pytest.raises(ValueError, match="a link that leads out of its folder"):
        vocabulary_of(large)


@pytest.mark.peer
def test_transformers_finds_tokenizer_and_model(out):
    transformers = pytest.importorskip("transformers")
    text = f"{WORDS[3]} {WORDS[4]}  {WORDS[5]}"
    ours = BigBirdTokenizerFast.from_pretrained(out / "torch")(text)["input_ids"]
    for use_fast in (True, False):
        tokenizer = transformers.AutoTokenizer.from_pretrained(out / "torch", use_fast=use_fast)
        assert type(tokenizer).__name__ == ("BigBirdTokenizerFast" if use_fast else "BigBirdTokenizer")
        assert tokenizer(text)["input_ids"] == ours
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(out / "torch")
    output = model(**tokenizer(text, return_tensors="pt"))
    assert np.isfinite(output.start_logits.detach().numpy()).all()
