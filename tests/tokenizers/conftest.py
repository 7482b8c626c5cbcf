"""A small vocabulary with the original's layout, and the original's own where it is at hand."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizer_corpus import WORDS

from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
USER_DEFINED = ["<s>", "<sep_0>", "<t>", "<length_1>", "<length_10>", "[CLS]", "[SEP]", "[MASK]"]


def _train() -> bytes:
    choose = random.Random(5)
    sentences = [" ".join(choose.choices(WORDS, k=8)) for _ in range(600)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=400,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=10,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        user_defined_symbols=USER_DEFINED,
        num_threads=1,
        minloglevel=2,
    )
    # As in the original all scores are 0, and some pieces reach over a space.
    vocabulary = sentencepiece_model_pb2.ModelProto()
    vocabulary.ParseFromString(model.getvalue())
    for piece in vocabulary.pieces:
        piece.score = 0.0
    for text in ("▁no▁no", "▁no▁no▁no▁no"):
        vocabulary.pieces.add(piece=text, score=0.0, type=1)
    return bytes(vocabulary.SerializeToString())


@pytest.fixture(scope="session")
def fixture_vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "fixture.model"
    path.write_bytes(_train())
    return path


@pytest.fixture(scope="session")
def original_vocab() -> Path:
    shared = Path(os.environ.get("BIGBIRD_PORT_SHARED", ROOT.parent / "shared"))
    path = shared / "vocab" / "gpt2.model"
    if not path.is_file():
        pytest.skip(f"the original's vocabulary is not at {path}; BIGBIRD_PORT_SHARED names its folder")
    return path


@pytest.fixture(scope="session", params=["fixture", "original"])
def vocab(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(f"{request.param}_vocab")
    return path


@pytest.fixture(scope="session")
def slow(vocab: Path) -> BigBirdTokenizer:
    return BigBirdTokenizer(vocab)


@pytest.fixture(scope="session")
def fast(vocab: Path) -> BigBirdTokenizerFast:
    return BigBirdTokenizerFast(vocab)


@pytest.fixture(scope="session")
def peer_slow(vocab: Path):
    return pytest.importorskip("transformers").BigBirdTokenizer(str(vocab))


@pytest.fixture(scope="session")
def peer_fast(vocab: Path):
    return pytest.importorskip("transformers").BigBirdTokenizerFast(str(vocab))
