import itertools
import json

import numpy as np
import pytest
import safetensors.numpy

from bigbird_port.families.bigbird.config import BigBirdConfig
from parity.given.inputs import check_ids, choices_apart, default_length, for_head, make_inputs, portions, read_inputs

CONFIG = BigBirdConfig(vocab_size=80)


def test_seeded_inputs_are_long_padded_mixed_and_repeatable():
    inputs = make_inputs(CONFIG, 4, 1024, seed=0)
    ids = inputs["input_ids"]
    lengths = (ids != 0).sum(1)
    assert lengths[0] == 1024
    assert len(set(lengths)) == 4
    assert any(length % 64 for length in lengths[1:])
    assert all((row[:n] != 0).all() and not row[n:].any() for row, n in zip(ids, lengths, strict=True))
    assert set(np.unique(inputs["token_type_ids"])) == {0, 1}
    assert ((ids == CONFIG.sep_token_id).sum(1) == 1).all()
    again = make_inputs(CONFIG, 4, 1024, seed=0)
    assert all((again[name] == inputs[name]).all() for name in inputs)
    assert (make_inputs(CONFIG, 4, 1024, seed=1)["input_ids"] != ids).any()


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 1), (2, 2), (2, 7)])
def test_small_inputs_hold_at_least_one_token_each(batch, length):
    ids = make_inputs(CONFIG, batch, length, seed=0)["input_ids"]
    assert ids.shape == (batch, length)
    assert (ids[:, 0] != 0).all()


def test_the_default_length_is_that_of_the_pattern():
    assert default_length(CONFIG.replace(max_encoder_length=528)) == 528
    assert default_length(CONFIG) == 1024
    assert default_length(CONFIG.replace(max_position_embeddings=600)) == 600


@pytest.mark.parametrize("vocabulary", [3, CONFIG.vocab_size])
def test_choices_differ_in_every_word_and_keep_their_padding(vocabulary):
    config = CONFIG.replace(vocab_size=vocabulary)
    ids = for_head(make_inputs(config, 2, 200, seed=0), "multiple-choice", config)["input_ids"]
    assert ids.shape == (2, 2, 200)
    assert ids.dtype == np.int32
    words = ids[:, 0] != 0
    np.testing.assert_array_equal(ids[:, 1] != 0, words)
    np.testing.assert_array_equal(ids[:, 0] != ids[:, 1], words)
    assert 0 <= ids.min() <= ids.max() < vocabulary


def test_choices_of_a_text_that_repeats_one_word_differ():
    """Or the loss would have no gradient, and that of a framework nothing to be compared with."""
    for length, word in itertools.product((1, 5, 80), (1, 7, CONFIG.vocab_size - 1)):
        ids = for_head({"input_ids": np.full((2, length), word, np.int32)}, "multiple-choice", CONFIG)["input_ids"]
        assert (ids[:, 0] != ids[:, 1]).all()
    masked = {"input_ids": np.zeros((2, 5), np.int32), "attention_mask": np.ones((2, 5), np.int32)}
    ids = for_head(masked, "multiple-choice", CONFIG)["input_ids"]  # here the padding's id is a word
    assert (ids[:, 0] != ids[:, 1]).all()


def test_only_question_answering_takes_question_lengths():
    inputs = make_inputs(CONFIG, 2, 64, seed=0) | {"question_lengths": np.array([5, 6], np.int32)}
    assert set(for_head(inputs, "qa", CONFIG)) == {"input_ids", "token_type_ids", "question_lengths"}
    assert set(for_head(inputs, "base", CONFIG)) == {"input_ids", "token_type_ids"}


def test_files_of_both_kinds_are_read(tmp_path):
    ids = np.array([[5, 6, 0]])
    safetensors.numpy.save_file({"input_ids": ids, "other": ids}, tmp_path / "x.safetensors")
    (tmp_path / "x.json").write_text(json.dumps({"input_ids": ids.tolist()}))
    for file in ("x.safetensors", "x.json"):
        inputs = read_inputs(tmp_path / file)
        assert set(inputs) == {"input_ids"}
        np.testing.assert_array_equal(inputs["input_ids"], ids)
        assert inputs["input_ids"].dtype == np.int32


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "{", "cannot be read"),
        ("x.json", "[1]", "cannot be read"),
        ("x.json", "{}", "no input_ids, found nothing"),
        ("x.json", '{"input_ids": [[1.5]]}', "expected an array of integers"),
        ("x.json", '{"input_ids": [[1, 2], [3]]}', "cannot be read"),
        ("x.safetensors", "no", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_inputs(tmp_path / name)
    assert name in str(caught.value)


def test_ids_outside_an_embedding_are_named_by_place():
    with pytest.raises(ValueError, match=r"input_ids\[0, 1\] is 80, but the embedding has ids 0 \.\. 79"):
        check_ids({"input_ids": np.array([[1, 80]])}, CONFIG)
    with pytest.raises(ValueError, match=r"token_type_ids\[0, 0\] is -1"):
        check_ids({"input_ids": np.array([[1]]), "token_type_ids": np.array([[-1]])}, CONFIG)


@pytest.mark.parametrize(
    ("shape", "tokens", "multiple", "sizes"),
    [
        ((5, 8), 1, 1, [1, 1, 1, 1, 1]),
        ((5, 8), 16, 1, [2, 2, 1]),
        ((6, 8), 31, 2, [2, 2, 2]),
        ((6, 8), 32, 2, [4, 2]),
        ((5, 8), 1000, 1, [5]),
        ((3, 2, 8), 32, 1, [2, 1]),
    ],
)
def test_portions_are_all_texts_in_order(shape, tokens, multiple, sizes):
    ids = np.arange(np.prod(shape)).reshape(shape)
    found = list(portions({"input_ids": ids, "position_ids": np.arange(8)[None]}, tokens, multiple))
    assert [len(some["input_ids"]) for _, some in found] == sizes
    np.testing.assert_array_equal(np.concatenate([some["input_ids"] for _, some in found]), ids)
    for texts, some in found:
        np.testing.assert_array_equal(some["input_ids"], ids[texts])
        assert some["position_ids"].shape == (1, 8)


def test_choices_apart_are_questions_in_the_order_of_the_texts():
    inputs = for_head(make_inputs(CONFIG, 3, 32, seed=0), "multiple-choice", CONFIG)
    apart = choices_apart(inputs)
    assert apart.keys() == inputs.keys()
    for name, x in inputs.items():
        assert apart[name].shape == (6, 1, 32)
        np.testing.assert_array_equal(apart[name][3, 0], x[1, 1])
    plain = make_inputs(CONFIG, 3, 32, seed=0)
    assert choices_apart(plain) is plain
