"""A small SentencePiece vocabulary with the original's layout, trained on the spot."""

from __future__ import annotations

import io
import random

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from tests.tokenizers.tokenizer_corpus import WORDS

USER_DEFINED = ["<s>", "<sep_0>", "<t>", "<length_1>", "<length_10>", "[CLS]", "[SEP]", "[MASK]"]


def train_pegasus_vocabulary() -> bytes:
    """Return a model of about 400 pieces with scores and a normaliser, as the original's for summaries."""
    return _trained(6, "nmt_nfkc", 105, [*USER_DEFINED, "<n>"])


def train_vocabulary() -> bytes:
    """Return a model of about 400 pieces, all of score 0 as in the original."""
    # As in the original all scores are 0, and some pieces reach over a space.
    vocabulary = sentencepiece_model_pb2.ModelProto()
    vocabulary.ParseFromString(_trained(5, "identity", 10, USER_DEFINED))
    for piece in vocabulary.pieces:
        piece.score = 0.0
    for text in ("▁no▁no", "▁no▁no▁no▁no"):
        vocabulary.pieces.add(piece=text, score=0.0, type=1)
    return bytes(vocabulary.SerializeToString())


def _trained(seed: int, normaliser: str, unk_id: int, symbols: list[str]) -> bytes:
    choose = random.Random(seed)
    sentences = [" ".join(choose.choices(WORDS, k=8)) for _ in range(600)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=400,
        hard_vocab_limit=False,
        normalization_rule_name=normaliser,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=unk_id,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        user_defined_symbols=symbols,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
