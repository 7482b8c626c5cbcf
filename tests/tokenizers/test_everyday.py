"""What scripts do with batches and tokenizers beyond a call: move, convert, ask for places, train, collate."""

import copy
import pickle

import numpy as np
import pytest
import torch

from bigbird_port.tokenizers import (
    BatchEncoding,
    BigBirdTokenizer,
    BigBirdTokenizerFast,
    MaskingCollator,
    PaddingCollator,
)

CLASSES = (BigBirdTokenizer, BigBirdTokenizerFast)
TEXTS = ["hello the world", "a question of the model"]


@pytest.fixture(scope="module", params=CLASSES)
def tokenizer(request, fixture_vocab):
    return request.param(fixture_vocab)


@pytest.fixture(scope="module")
def quick(fixture_vocab):
    return BigBirdTokenizerFast(fixture_vocab)


def test_a_batch_is_moved_converted_and_stored(tokenizer):
    batch = tokenizer(TEXTS, padding=True)
    assert batch.data is batch
    assert batch[:1] == {name: rows[:1] for name, rows in batch.items()}
    with pytest.raises(ValueError, match="return_tensors='pt'"):
        batch.to("cpu")
    assert batch.convert_to_tensors("pt") is batch
    assert batch.to("cpu", non_blocking=True) is batch
    assert batch.to("meta")["input_ids"].is_meta
    one = tokenizer(TEXTS[0]).convert_to_tensors("np", prepend_batch_axis=True)
    assert one.input_ids.shape[0] == one.attention_mask.shape[0] == 1
    same = BatchEncoding({"input_ids": [[1, 2]]}, tensor_type="pt")
    assert torch.equal(same.input_ids, torch.tensor([[1, 2]]))
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), one.copy(), type(one)(dict(one))):
        assert isinstance(again, BatchEncoding)
        assert np.array_equal(again.input_ids, one.input_ids)


@pytest.mark.peer
def test_places_are_transformers(quick, fixture_vocab):
    transformers = pytest.importorskip("transformers")
    if int(transformers.__version__.partition(".")[0]) >= 5:
        pytest.skip("BigBirdTokenizerFast of transformers 5 takes no sentencepiece file")
    peer = transformers.BigBirdTokenizerFast(str(fixture_vocab))
    ours, theirs = (tok(TEXTS, [TEXTS[1]] * 2, return_token_type_ids=True) for tok in (quick, peer))
    assert ours.is_fast
    assert ours.n_sequences == theirs.n_sequences == 2
    for row in (0, 1):
        assert ours.words(row) == theirs.word_ids(row)
        for name in ("tokens", "word_ids", "sequence_ids"):
            assert getattr(ours, name)(batch_index=row) == getattr(theirs, name)(batch_index=row), name
        assert ours.token_to_chars(row, -2) == ours.token_to_chars(row, len(ours["input_ids"][row]) - 2) is not None
        for token in range(len(ours["input_ids"][row])):
            for name in ("token_to_word", "token_to_chars", "token_to_sequence"):
                assert getattr(ours, name)(row, token) == getattr(theirs, name)(row, token), (name, token)
        for place in range(3):
            for name in ("word_to_tokens", "word_to_chars", "char_to_token", "char_to_word"):
                for sequence in (0, 1):
                    found = getattr(ours, name)(row, place, sequence_index=sequence)
                    assert found == getattr(theirs, name)(row, place, sequence_index=sequence), (name, place)
    assert ours.char_to_token(2) == theirs.char_to_token(2)
    assert ours[0].ids == theirs[0].ids


def test_places_of_a_slow_tokenizer_are_refused(fixture_vocab):
    batch = BigBirdTokenizer(fixture_vocab)(TEXTS)
    assert not batch.is_fast
    assert batch.n_sequences is None
    for ask in (lambda: batch[0], lambda: batch.word_to_tokens(0), lambda: batch.token_to_chars(0, 1)):
        with pytest.raises(ValueError, match="such as BigBirdTokenizerFast"):
            ask()


def test_targets_are_labels(tokenizer):
    both = tokenizer(TEXTS, text_target=TEXTS[::-1], padding=True, return_tensors="np")
    assert both["labels"].tolist() == tokenizer(TEXTS[::-1], padding=True)["input_ids"]
    assert both["input_ids"].tolist() == tokenizer(TEXTS, padding=True)["input_ids"]
    assert tokenizer(text_target=TEXTS[0]) == tokenizer(TEXTS[0])


@pytest.mark.parametrize("asked", [{"truncation": True}, {"padding": "max_length"}])
def test_a_limit_that_there_is_not_is_told(tokenizer, asked):
    with pytest.warns(UserWarning, match=r"does nothing, because the tokenizer has no model_max_length: give max_len"):
        found = tokenizer(TEXTS[0], **asked)
    assert found == tokenizer(TEXTS[0])


def test_a_new_vocabulary_is_trained(tokenizer):
    texts = (["the quick brown fox"] * 20, "jumps over the lazy dog " * 20)
    new = tokenizer.train_new_from_iterator(
        texts, 60, new_special_tokens=["<table>"], special_tokens_map={"[MASK]": "<mask>"}
    )
    assert type(new) is type(tokenizer)
    assert (new.mask_token, new.cls_token, new.pad_token_id) == ("<mask>", "[CLS]", tokenizer.pad_token_id)
    assert len(new) < len(tokenizer)
    ids = new("the quick <mask> dog <table>")["input_ids"]
    assert new.mask_token_id in ids
    assert new.convert_tokens_to_ids("<table>") in ids
    assert new.additional_special_tokens == ["<table>"]
    assert new.decode(ids, skip_special_tokens=True).split() == ["the", "quick", "dog"]
    with pytest.raises(ValueError, match="no vocabulary of 3 pieces"):
        tokenizer.train_new_from_iterator(texts, 3)


def test_a_trained_tokenizer_is_stored(tokenizer, tmp_path):
    new = tokenizer.train_new_from_iterator(["the quick brown fox jumps"] * 30, 60)
    new.save_pretrained(tmp_path)
    assert type(new).from_pretrained(tmp_path)("the fox") == new("the fox")


def test_rows_are_padded_with_their_labels(tokenizer):
    rows = [{**tokenizer(text), "labels": [1] * len(tokenizer(text)["input_ids"])} for text in TEXTS]
    batch = PaddingCollator(tokenizer, pad_to_multiple_of=8)(rows)
    assert batch.labels.shape == batch.input_ids.shape
    assert (batch.labels == -100).equal(batch.attention_mask == 0)
    numbers = PaddingCollator(tokenizer, return_tensors="np")([{**tokenizer(t), "label": 0.5} for t in TEXTS])
    assert numbers["labels"].tolist() == [0.5, 0.5]
    assert numbers["labels"].dtype == np.float32


@pytest.mark.parametrize("whole", [False, True])
def test_words_are_masked(tokenizer, whole):
    rows = [tokenizer(" ".join(TEXTS * 40)), tokenizer(TEXTS[0])]
    collator = MaskingCollator(tokenizer, whole_words=whole, mlm_probability=0.3, seed=1)
    batch = collator(rows)
    original = torch.tensor(tokenizer.pad(rows)["input_ids"])
    chosen = batch.labels != -100
    assert torch.equal(batch.labels[chosen], original[chosen])
    assert torch.equal(batch.input_ids[~chosen], original[~chosen])
    special = torch.tensor(
        [tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in original]
    )
    assert not (chosen & (special == 1)).any()
    share = chosen[0].float().mean().item()
    assert 0.2 < share < 0.4
    masked = (batch.input_ids == tokenizer.mask_token_id)[chosen].float().mean().item()
    assert 0.65 < masked < 0.95
    starts = [token.startswith("▁") for token in tokenizer.convert_ids_to_tokens(original[0])]
    splits = [chosen[0, i] != chosen[0, i - 1] for i in range(2, len(starts) - 1) if not starts[i]]
    assert any(splits) is not whole
    assert not torch.equal(collator(rows).labels, batch.labels)  # drawn anew
    again = MaskingCollator(tokenizer, whole_words=whole, mlm_probability=0.3, seed=1)(rows)
    assert torch.equal(again.input_ids, batch.input_ids)
    with pytest.raises(ValueError, match="mlm_probability is 0"):
        MaskingCollator(tokenizer, mlm_probability=0)
