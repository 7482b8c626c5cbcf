"""A small vocabulary with the original's layout, and the original's own where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast
from tests.vocabulary import train_vocabulary

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def fixture_vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "fixture.model"
    path.write_bytes(train_vocabulary())
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
